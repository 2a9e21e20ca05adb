using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Sees from the faults where the guest is going, and asks for what it will touch next. Each virtual CPU (thread of the VM's process) may
/// be on several walks at once; a walk is a sequence of faults with the same distance between them, up or down.
/// <para>
/// A walk has a window: the pages ahead that have been asked for. Pages of the window cause no fault when they are here in time, so the
/// walk is seen again at the first page after the window, or at one that is still under way. Then the guest has used what was brought,
/// these pages are hits, and the window doubles. A walk that is not seen again was a guess too much: its pages are misses, and the
/// CPU's next walks begin with half the window, until hits widen it again. When memory is short the window is cut to a part of the room.
/// </para>
/// <para>
/// Where the walk goes through memory that is not used yet, the window's pages are filled with zeros (<see cref="UnusedFill"/>).
/// </para>
/// The fault thread only. Allocates nothing after its construction.
/// </summary>
internal sealed class Prefetcher
{
    private const int Processors = 32;
    private const int WalksEach = 4;
    private const int LongestWindow = 64;
    private const int FirstWindow = 8;

    /// <summary>In pages. Farther apart, two faults have nothing to do with each other.</summary>
    private const long LongestStride = 32;

    private readonly PagingCore _core;
    private readonly UnusedFill _unused;
    private readonly bool[] _toFlush;
    private readonly Processor[] _processors = new Processor[Processors];
    private readonly Walk[] _walks = new Walk[Processors * WalksEach];
    private uint _clock;

    /// <param name="core">Of the pager.</param>
    /// <param name="unused">Fills unused pages.</param>
    public Prefetcher(PagingCore core, UnusedFill unused)
    {
        _core = core;
        _unused = unused;
        _toFlush = new bool[PageEntry.MaxSubs];
    }

    /// <summary>A fault on a remote page, which has just been asked for; on one that is under way; or on an unused one, which is about to be filled.</summary>
    /// <param name="thread">Of the guest that waits for it.</param>
    /// <param name="unused">It was unused.</param>
    public void Faulted(long page, uint thread, bool write, bool unused = false)
    {
        int processor = ProcessorOf(thread);
        var walks = _walks.AsSpan(processor * WalksEach, WalksEach);
        _clock++;
        for (int i = 0; i < walks.Length; i++)
        {
            ref var walk = ref walks[i];
            if (walk.LastSeen != 0 && Continues(ref walk, page))
            {
                walk.LastSeen = _clock;
                Extend(ref walk, ref _processors[processor], page, write, unused);
                return;
            }
        }

        int oldest = 0;
        for (int i = 1; i < walks.Length; i++)
        {
            oldest = _clock - walks[i].LastSeen > _clock - walks[oldest].LastSeen ? i : oldest;
        }

        Abandon(ref walks[oldest], ref _processors[processor]);
        walks[oldest] = new() { At = page, Ahead = page, LastSeen = _clock };
    }

    /// <summary>Sends what was asked for on its way.</summary>
    public void Flush()
    {
        for (int i = 0; i < _toFlush.Length; i++)
        {
            if (_toFlush[i])
            {
                _toFlush[i] = false;
                _core.Stores[i].Prefetch.Flush();
                if (!_core.Stores[i].Prefetch.IsConnected)
                {
                    // It has just gone, perhaps before it knew of these.
                    _core.Stores[i].Prefetch.TakeBack();
                }
            }
        }
    }

    /// <summary>Whether the fault belongs to the walk; if so, its stride is known from here on.</summary>
    private static bool Continues(ref Walk walk, long page)
    {
        long distance = page - walk.At;
        if (distance == 0)
        {
            return walk.Window > 0;
        }

        if (walk.Stride == 0)
        {
            if (Math.Abs(distance) > LongestStride)
            {
                return false;
            }

            walk.Stride = (int)distance;
            // Next to each other is a sequence at once; any other distance must show twice.
            walk.Sure = distance is 1 or -1;
            return true;
        }

        // Somewhere in the window, or right after it.
        long steps = distance / walk.Stride;
        return distance % walk.Stride == 0 && steps >= 1 && steps <= (walk.Ahead - walk.At) / walk.Stride + 1;
    }

    private void Extend(ref Walk walk, ref Processor processor, long page, bool write, bool unused)
    {
        if (walk.Window > 0 && page != walk.At)
        {
            long used = Math.Min((page - walk.At) / walk.Stride, (walk.Ahead - walk.At) / walk.Stride);
            // Only of what came over the network.
            long hits = Math.Min(used, walk.Asked);
            walk.Asked -= (int)hits;
            Interlocked.Add(ref _core.Counters.PrefetchHits, hits);
            processor.Start = Math.Min(LongestWindow / 2, Math.Max(1, processor.Start * 2));
        }

        bool proven = walk.Sure;
        walk.Sure = true;
        walk.At = page;
        if ((walk.Ahead - page) / walk.Stride < 0)
        {
            walk.Ahead = page;
        }

        if (!proven)
        {
            return;
        }

        // Half of what is there above the watermark at most; nothing when the evictor is behind.
        long room = (_core.LimitPages - _core.Table.LocalPages) / 2;
        walk.Window = (int)Math.Min(walk.Window == 0 ? processor.Start : Math.Min(walk.Window * 2, LongestWindow), room);
        bool network = walk.Window > 0;
        if (unused)
        {
            // It takes these in a moment anyway, one fault each: that is no more memory, and more work when there is least time for it.
            walk.Window = (int)Math.Max(walk.Window, Math.Min(UnusedFill.PagesAtOnce, _core.HardPages - _core.Table.LocalPages));
        }

        if (walk.Window > 0)
        {
            Ask(ref walk, write, network);
        }
        else
        {
            walk.Window = 0;
        }
    }

    /// <summary>Asks for the pages up to the window's end that have not been asked for, those that lie together in one request.</summary>
    private void Ask(ref Walk walk, bool write, bool network)
    {
        long first = -1;
        int count = 0;
        int sub = -1;
        long last = walk.At + (long)walk.Stride * walk.Window;
        // A window that was cut for want of room may end before what was asked for already.
        while ((last - walk.Ahead) / walk.Stride > 0)
        {
            long page = walk.Ahead + walk.Stride;
            if ((ulong)page >= (ulong)_core.Table.PageCount)
            {
                break;
            }

            var entry = _core.Table[page];
            if (entry.State == PageState.Unused && _unused.IsFull)
            {
                // Where the walk shows again.
                break;
            }

            if (entry.State == PageState.Unused)
            {
                walk.Ahead = page;
                _unused.Take(page);
                continue;
            }

            if (entry.State != PageState.Remote || !network)
            {
                walk.Ahead = page;
                continue;
            }

            int from = _core.Copies.StoreToAsk(page, entry.Sub);
            bool joins = count > 0 && count < PrefetchChannel.MaxPages && from == sub && (page == first + count || page == first - 1);
            if (!joins)
            {
                Send(first, count, sub, write);
                count = 0;
            }

            // The walk's own fault waits. What is not asked for is not ahead: the walk shows again there.
            if (_core.Copies.IsGone(entry.Sub) || !_core.Stores[from].Prefetch.Takes(count, othersWait: _core.Waits.Count > 1))
            {
                break;
            }

            walk.Ahead = page;
            if (!_core.Table.TryMove(page, entry, entry.With(PageState.Fetching)))
            {
                continue;
            }

            if (!_core.Table.Places.Contains(entry.Sub, from))
            {
                // In between the number beside it has come to stand for other sub-hosts. Whoever touches the page asks one of them.
                _core.Table.Move(page, entry.With(PageState.Fetching), entry);
                _core.Pages.Wake(new(page, 1));
                continue;
            }

            Interlocked.Increment(ref _core.Counters.Prefetched);
            walk.Asked++;
            first = count == 0 ? page : Math.Min(first, page);
            sub = from;
            count++;
        }

        Send(first, count, sub, write);
        _unused.Fill();
    }

    private void Send(long first, int count, int sub, bool write)
    {
        if (count > 0)
        {
            _core.Stores[sub].Prefetch.Get(new(first, count), write);
            _toFlush[sub] = true;
        }
    }

    private void Abandon(ref Walk walk, ref Processor processor)
    {
        if (walk.LastSeen != 0 && walk.Window > 0)
        {
            Interlocked.Add(ref _core.Counters.PrefetchMisses, Math.Min((walk.Ahead - walk.At) / walk.Stride, walk.Asked));
            processor.Start = Math.Max(1, processor.Start / 2);
        }
    }

    private int ProcessorOf(uint thread)
    {
        int at = (int)(thread * 0x9E3779B1u >> 27) % Processors;
        for (int i = 0; i < Processors; i++)
        {
            ref var processor = ref _processors[(at + i) % Processors];
            if (processor.Thread == 0)
            {
                processor = new() { Thread = thread, Start = FirstWindow };
            }

            if (processor.Thread == thread)
            {
                return (at + i) % Processors;
            }
        }

        // More threads than places: some share.
        return at;
    }

    private struct Processor
    {
        public uint Thread;
        public int Start;
    }

    private struct Walk
    {
        /// <summary>Where it was seen last.</summary>
        public long At;

        /// <summary>The last page asked for ahead of it; <see cref="At"/> when none was.</summary>
        public long Ahead;

        /// <summary>0: not known yet.</summary>
        public int Stride;

        public int Window;

        /// <summary>Pages asked for that it has not been seen to go through.</summary>
        public int Asked;

        public bool Sure;
        public uint LastSeen;
    }
}
