using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Protects pages of a split VM, on its main host, for a <see cref="WriteWatch"/>: pages that are here and that nobody else changes at the
/// moment. The fault thread lifts the protection of such a page as it does for any page that is here. A packed page is as good as protected: its
/// writer misses it, and it is unpacked first. One thread.
/// </summary>
internal sealed class PagingWriteProtection(PagingCore core) : IWriteProtection
{
    private const int Most = 64;

    private readonly PageEntry[] _entries = new PageEntry[Most];

    public long Protect(PageRange pages, WriteWatch watch)
    {
        int count = 0;
        bool packed = core.Table[pages.First].State == PageState.Packed;
        while (count < Math.Min(pages.Count, Most) && TryOwn(pages.First + count, packed, out _entries[count]))
        {
            count++;
        }

        if (count == 0)
        {
            return 0;
        }

        var owned = new PageRange(pages.First, count);
        bool done = packed || core.Pages.Protect(owned) == 0;
        if (done)
        {
            watch.Protected(owned);
        }

        for (int i = 0; i < count; i++)
        {
            core.Table.Move(owned.First + i, _entries[i].With(PageState.Busy), _entries[i]);
        }

        // Who came while they were owned has been told to wait for their owner.
        core.Pages.Wake(owned);
        return done ? count : 0;
    }

    private bool TryOwn(long page, bool packed, out PageEntry entry)
    {
        entry = core.Table[page];
        bool wanted = packed ? entry.State == PageState.Packed : entry.State is PageState.Resident or PageState.ResidentClean;
        return wanted && core.Table.TryMove(page, entry, entry.With(PageState.Busy));
    }
}
