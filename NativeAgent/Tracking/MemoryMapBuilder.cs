using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Contracts;

namespace FCtrans.Agent.Tracking;

/// <summary>
/// Draws the map of a VM's memory: cuts each piece of RAM into granules, counts what their pages are and where these lie, and names
/// each granule by what most of its pages are. Cost: a few instructions for 64 pages, and one a page of a split VM.
/// </summary>
/// <param name="ram">The VM's RAM.</param>
/// <param name="set">Its unused pages.</param>
/// <param name="hot">The pages that the guest is most likely to want next; null: not known.</param>
/// <param name="table">Where the pages of a split VM are; null: all that takes memory takes it here.</param>
/// <param name="subHosts">How many sub-hosts the table can name.</param>
internal sealed class MemoryMapBuilder(GuestRam ram, UnusedSet set, PageBitmap? hot, PageTable? table, int subHosts)
{
    public const int Nowhere = -1;
    public const int Here = 0;
    public const int Lost = -2;

    private readonly ulong[] _remote = new ulong[subHosts];

    /// <param name="granule">Pages in a granule; at least 1.</param>
    /// <param name="merge">Neighbours of the same kind and place come as one.</param>
    /// <param name="found">Told of each range, in the order of pages.</param>
    public void Build(long granule, bool merge, Action<MemoryMapRange> found)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(granule, 1);
        MemoryMapRange? last = null;
        for (int b = 0; b < ram.Blocks.Length; b++)
        {
            var block = ram.Blocks[b];
            long edge = block.FirstPage;
            for (long first = edge; first < block.EndPage;)
            {
                var piece = PieceAt(first, block.EndPage);
                long end = Math.Min(piece.End, first + granule - ((first - edge) % granule));
                var next = Describe(new(first, end - first), (uint)b, piece.Address);
                if (merge && last is not null && Joins(last, next))
                {
                    Add(last, next);
                }
                else
                {
                    if (last is not null)
                    {
                        found(last);
                    }

                    last = next;
                }

                first = end;
            }
        }

        if (last is not null)
        {
            found(last);
        }
    }

    private static bool Joins(MemoryMapRange last, MemoryMapRange next)
        => last.Kind == next.Kind && last.Place == next.Place && last.RamBlock == next.RamBlock
            && last.HasGuestPhysicalAddress == next.HasGuestPhysicalAddress
            && (!last.HasGuestPhysicalAddress || last.GuestPhysicalAddress + (last.Pages << PageIndex.PageShift) == next.GuestPhysicalAddress);

    private static void Add(MemoryMapRange last, MemoryMapRange next)
    {
        last.Pages += next.Pages;
        last.NeverTouchedPages += next.NeverTouchedPages;
        last.FreePages += next.FreePages;
        last.BalloonedPages += next.BalloonedPages;
        last.UsedPages += next.UsedPages;
        last.HotPages += next.HotPages;
        last.ResidentPages += next.ResidentPages;
        last.LostPages += next.LostPages;
        if (last.RemotePages.Count == 0)
        {
            last.RemotePages.AddRange(next.RemotePages);
        }
        else
        {
            for (int i = 0; i < next.RemotePages.Count; i++)
            {
                last.RemotePages[i] += next.RemotePages[i];
            }
        }
    }

    /// <summary>Up to where the guest's physical memory goes on in one piece from a page, and the address there; none when it is not on the guest's bus.</summary>
    private (long End, ulong? Address) PieceAt(long page, long blockEnd)
    {
        ulong offset = (ulong)page << PageIndex.PageShift;
        long end = blockEnd;
        foreach (ref readonly var segment in ram.Segments)
        {
            if (offset >= segment.RamOffset && offset - segment.RamOffset < segment.Bytes)
            {
                long segmentEnd = (long)((segment.RamOffset + segment.Bytes + PageIndex.PageSize - 1) >> PageIndex.PageShift);
                return (Math.Min(blockEnd, segmentEnd), segment.Start + (offset - segment.RamOffset));
            }

            if (segment.RamOffset > offset)
            {
                end = Math.Min(end, (long)((segment.RamOffset + PageIndex.PageSize - 1) >> PageIndex.PageShift));
            }
        }

        return (end, null);
    }

    private MemoryMapRange Describe(PageRange pages, uint block, ulong? address)
    {
        ulong never = (ulong)set.NeverTouched.CountIn(pages);
        ulong free = (ulong)set.Free.CountIn(pages);
        ulong ballooned = (ulong)set.Ballooned.CountIn(pages);
        ulong count = (ulong)pages.Count;
        var range = new MemoryMapRange
        {
            FirstPage = (ulong)pages.First,
            Pages = count,
            NeverTouchedPages = never,
            FreePages = free,
            BalloonedPages = ballooned,
            UsedPages = count - never - free - ballooned,
            HotPages = (ulong)(hot?.CountIn(pages) ?? 0),
            RamBlock = block,
        };
        if (address is { } at)
        {
            range.GuestPhysicalAddress = at;
        }

        range.Kind = KindOf(range);
        AddPlaces(range, pages);
        return range;
    }

    private static MemoryKind KindOf(MemoryMapRange range)
    {
        // What is used wins when there is as much of it as of another.
        var kind = MemoryKind.Used;
        ulong most = range.UsedPages;
        Consider(MemoryKind.Free, range.FreePages, ref kind, ref most);
        Consider(MemoryKind.Ballooned, range.BalloonedPages, ref kind, ref most);
        Consider(MemoryKind.NeverTouched, range.NeverTouchedPages, ref kind, ref most);
        return kind;
    }

    private static void Consider<T>(T candidate, ulong pages, ref T best, ref ulong most)
    {
        if (pages > most)
        {
            best = candidate;
            most = pages;
        }
    }

    private void AddPlaces(MemoryMapRange range, PageRange pages)
    {
        if (table is null)
        {
            range.ResidentPages = range.Pages - range.NeverTouchedPages;
            range.Place = range.Kind == MemoryKind.NeverTouched ? Nowhere : Here;
            return;
        }

        ulong resident = 0;
        ulong lost = 0;
        bool remote = false;
        _remote.AsSpan().Clear();
        for (long page = pages.First; page < pages.End; page++)
        {
            var entry = table[page];
            switch (entry.State)
            {
                case PageState.Unused:
                    break;
                case PageState.Lost:
                    lost++;
                    break;
                case PageState.Remote or PageState.Fetching when (uint)table.Places.First(entry.Sub) is var store && store < (uint)_remote.Length:
                    // Of two copies, the first.
                    _remote[store]++;
                    remote = true;
                    break;
                default:
                    resident++;
                    break;
            }
        }

        range.ResidentPages = resident;
        range.LostPages = lost;
        int place = Nowhere;
        ulong most = 0;
        Consider(Here, resident, ref place, ref most);
        for (int i = 0; remote && i < _remote.Length; i++)
        {
            Consider(i + 1, _remote[i], ref place, ref most);
        }

        if (remote)
        {
            range.RemotePages.AddRange(_remote);
        }

        Consider(Lost, lost, ref place, ref most);
        range.Place = range.Kind == MemoryKind.NeverTouched ? Nowhere : place;
    }
}
