using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Keeps <see cref="PageHeat.GuestHot"/> true while pages leave: looks at what the guest's kernel thinks of the pages that are here, a part
/// of the memory at a time, so that a look costs some 10 ms however large the VM is. Fetches nothing: a <c>struct page</c> that is not here
/// itself reads as zeros, and its page as not hot. One thread at a time.
/// </summary>
internal sealed class GuestHeat(PagingCore core) : IDisposable
{
    /// <summary>4 GiB of the guest's memory, whose structures take 64 MiB.</summary>
    private const long PartPages = 1L << 20;

    private readonly PageBitmap _away = new(core.Table.PageCount);
    private GuestKernel? _kernel;
    private GuestLru? _lru;
    private long _hand;
    private long _left;

    /// <summary>Looks at the next part, if pages have left since the last time.</summary>
    /// <param name="kernel">Found a moment ago.</param>
    /// <param name="ram">The VM's RAM, with its segments.</param>
    public void Look(GuestKernel kernel, GuestRam ram)
    {
        long left = Interlocked.Read(ref core.Counters.CleanDrops) + core.Counters.PageOuts.Sum();
        if (left == _left)
        {
            return;
        }

        _left = left;
        if (kernel != _kernel)
        {
            _kernel = kernel;
            _lru = GuestLru.TryOpen(kernel);
        }

        if (_lru is null)
        {
            return;
        }

        var part = new PageRange(_hand, Math.Min(PartPages, core.Table.PageCount - _hand));
        _hand = part.End == core.Table.PageCount ? 0 : part.End;
        for (long page = part.First; page < part.End; page++)
        {
            bool away = core.Table[page].State is PageState.Unused or PageState.Remote or PageState.Lost;
            if (_away[page] != away)
            {
                _away[page] = away;
            }
        }

        core.Heat.GuestHot.Fill(part, false);
        _lru.AddHot(ram, part, _away, core.Heat.GuestHot);
    }

    public void Dispose() => _away.Dispose();
}
