using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using FCtrans.Contracts;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Remote paging of one VM on its main host: answers its faults, and keeps what is here below a limit. docs/remote-paging.md tells how.
/// <para>
/// Has two threads of its own, beside each store's: one for faults, one that evicts. <see cref="Stop"/> (or a crash) leaves the VM's
/// faults waiting and everything as it is; <see cref="Resume"/>, in this process or another, goes on from what it finds.
/// </para>
/// </summary>
internal sealed class Pager : IDisposable
{
    private static readonly TimeSpan s_takesPatience = TimeSpan.FromSeconds(5);

    private readonly PagingCore _core;
    private readonly FaultThread _faults;
    private readonly Evictor _evictor;
    private readonly PageArrivals _arrivals;
    private readonly CopyKeeper _copies;
    private SourceDrain? _drain;

    /// <exception cref="ArgumentException">The options contradict each other.</exception>
    public Pager(PagerOptions options)
    {
        if (options.Table.PageCount != options.Ram.PageCount)
        {
            throw new ArgumentException("The page table has not as many pages as the VM.", nameof(options));
        }

        for (int i = 0; i < options.Stores.Count; i++)
        {
            if (options.Stores[i].Index != i)
            {
                throw new ArgumentException("The stores are not in the order of their indices.", nameof(options));
            }
        }

        _core = new(options);
        _faults = new(_core);
        _evictor = new(_core);
        _copies = new(_core);
        _core.Connect(_evictor.Wake, _faults.Wake, _copies.Wake);
        _arrivals = new PageArrivals(_core);
        foreach (var store in options.Stores)
        {
            store.Attach(_arrivals);
        }
    }

    /// <summary>Pages of the VM.</summary>
    public long PageCount => _core.Table.PageCount;

    /// <summary>The most pages that stay here; may change at any time, up or down. At least 256.</summary>
    public long LimitPages
    {
        get => _core.LimitPages;
        set
        {
            _core.LimitPages = value;
            _core.WakeEvictor();
            _core.WakeFaults();
        }
    }

    /// <summary>Whether there is so much here that pages leave for what comes.</summary>
    public bool IsFull => _core.Table.LocalPages >= _core.LowPages;

    /// <summary>Sets <paramref name="then"/> once, after the guest has had so many more pages fetched or taken them afresh. One thread; dispose it after this.</summary>
    public void TellAfter(long pages, EventWaitHandle then) => _core.TellAfter(pages, then);

    /// <summary>Whether pages are fetched ahead of their faults, and unused ones filled; may change at any time.</summary>
    public bool Prefetch
    {
        get => _core.Prefetch;
        set => _core.Prefetch = value;
    }

    /// <summary>Which pages leave; may change at any time.</summary>
    public EvictionPolicy Policy
    {
        get => _core.Heat.Policy;
        set => _core.Heat.Policy = value;
    }

    /// <summary>
    /// At how many sub-hosts each remote page is to be, 1 or 2; may change at any time. More copies are made in the background; fewer come to
    /// be as pages leave anew.
    /// </summary>
    public int Copies
    {
        get => _core.Copies.Wanted;
        set
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1);
            ArgumentOutOfRangeException.ThrowIfGreaterThan(value, 2);
            _core.Copies.Wanted = value;
            _core.WakeCopies();
        }
    }

    /// <summary>Managed bytes that the two loops have allocated since they began; no more once each has done every thing once, a contended lock included.</summary>
    public long AllocatedBytes => _faults.AllocatedBytes + _evictor.AllocatedBytes;

    /// <summary>
    /// For a worker that was started again: fills <see cref="PagerOptions.Table"/>, which must be new, from the RAM file and the stores,
    /// takes over the VM's memory, and gives a pager to start. Blocks until every store has answered.
    /// </summary>
    /// <exception cref="Interop.KernelException">The VM's process is gone.</exception>
    /// <exception cref="OperationCanceledException"><paramref name="cancellation"/> came first.</exception>
    public static Pager Resume(PagerOptions options, CancellationToken cancellation = default)
    {
        long conflicts;
        using (var stale = new StaleCopies(options.Table.PageCount, options.StateDirectory))
        {
            int[] spare = [.. PageCopies.ReadSpare(options.StateDirectory).Except(options.Gone)];
            foreach (int store in spare)
            {
                // All that is there is elsewhere too, and which of it is old nobody asks: it gets it anew.
                if (!stale.TryNote(store, new(0, options.Table.PageCount)))
                {
                    throw new IOException("Which copies of pages count can't be noted in the worker's directory. Make room on its file system.");
                }
            }

            conflicts = PageTableRebuild.Fill(
                options.Table, options.Ram, options.Packed, options.Stores, [.. options.Gone, .. spare], options.MayHavePairs, stale, cancellation);
        }

        if (options.Lost is { } lost)
        {
            KeepLost(options.Table, lost);
        }

        long gone = options.Table.Count(PageState.Lost) - conflicts;

        PageTableRebuild.Release(options.Ram, options.Uffds);
        var pager = new Pager(options);
        if (gone + conflicts > 0)
        {
            pager.NoteLost();
        }

        if (gone > 0)
        {
            pager._core.Report(
                $"{gone} pages are lost, with a sub-host that was given up or did not have them any more: the guest gets a memory error where it touches one.");
        }

        if (conflicts > 0)
        {
            pager._core.Report($"{conflicts} pages lie on two sub-hosts, and nothing says which copy is right: they are lost.");
        }

        return pager;
    }

    /// <summary>From now on faults are answered. The pages that are here already count as the oldest.</summary>
    public void Start()
    {
        for (long page = 0; (page = _core.Table.NextWithContent(page)) >= 0; page++)
        {
            if (_core.Table[page].State == PageState.Resident)
            {
                _core.Queue.Push(page);
            }
        }

        _faults.Start();
        _evictor.Start();
        _copies.Start();
    }

    /// <summary>Pages left at the source that went from there to a sub-host and not through this host.</summary>
    public long TakenBySubHosts => _drain?.Taken ?? 0;

    /// <summary>Begins to empty the source by the way of what a switch-over left there. After <see cref="Start"/>, once the VM runs here for good.</summary>
    /// <param name="source">One of the stores.</param>
    /// <param name="emptied">Called on another thread when nothing is there any more.</param>
    public void DrainSource(RemoteStore source, Action emptied) => _drain = new SourceDrain(_core, source, emptied);

    /// <summary>
    /// Answers no more faults and evicts no more. Pages asked for may still arrive until the stores are disposed. To go on, dispose the
    /// stores and this, then <see cref="Resume"/> with a new table.
    /// </summary>
    public void Stop()
    {
        _drain?.Dispose();
        _drain = null;
        _copies.Stop();
        _faults.Stop();
        _evictor.Stop();
    }

    /// <summary>What drops free pages of this VM. Dispose it before this.</summary>
    public PagingReclaimTarget OpenReclaimTarget() => new(_core);

    /// <summary>Knows which pages are written from now on. Open it once; it goes with this.</summary>
    public WriteWatch OpenWriteWatch()
    {
        var watch = new WriteWatch(_core.Table.PageCount, new PagingWriteProtection(_core));
        _core.Pages.Watch = watch;
        return watch;
    }

    /// <summary>Takes what the guest's kernel knows of its pages to where victims are chosen. Open it once; dispose it before this.</summary>
    public GuestHeat OpenGuestHeat() => new(_core);

    /// <summary>Keeps it true which pages of the guest's kernel stay here. Open it once; it goes with this.</summary>
    /// <param name="keep">Is given each new set, for the worker that comes after this one.</param>
    public KernelPins OpenKernelPins(Action<PageBitmap> keep) => new(_core.Table, _core.Heat, _core.EvictionGate, keep);

    /// <inheritdoc cref="PagingCore.Packed"/>
    public IPageContent? Packed => _core.Packed;

    /// <inheritdoc cref="PagingCore.SeenFree"/>
    public PageBitmap SeenFree => _core.SeenFree;

    /// <summary>As <see cref="PageTable.CopyUnused"/>.</summary>
    public void CopyUnused(PageBitmap into) => _core.Table.CopyUnused(into);

    /// <summary>Sets the pages that the evictor spares, or would if they were here: see <see cref="PageHeat"/>.</summary>
    public void AddHotTo(PageBitmap into) => _core.Heat.AddHotTo(into);

    /// <summary>What draws the map of the VM's memory, as the table has it then. Use it before this is disposed.</summary>
    /// <param name="ram">The VM's RAM, with its segments.</param>
    /// <param name="set">Its unused pages.</param>
    /// <param name="hot">Its hot pages.</param>
    /// <param name="subHosts">How many sub-hosts are told apart.</param>
    public MemoryMapBuilder Map(GuestRam ram, UnusedSet set, PageBitmap hot, int subHosts) => new(ram, set, hot, _core.Table, subHosts);

    /// <summary>The counts now; any thread, any time between <see cref="Start"/> and Dispose.</summary>
    public PagingFigures Snapshot()
    {
        var table = _core.Table;
        var counters = _core.Counters;
        long lost = table.Count(PageState.Lost);
        string? away = null;
        string? degraded = null;
        foreach (var store in _core.Stores)
        {
            bool left = _core.FateOf(store.Index) != StoreFate.Serves && _core.Copies.CopiesAt(store.Index) == 0;
            if (!left && _core.FateOf(store.Index) != StoreFate.Gone && store.Problem is { } problem)
            {
                if (_core.Copies.IsDispensable(store.Index))
                {
                    degraded ??= $"Sub-host {store.Options.Host} is away, and what it has is served by others: {problem}";
                }
                else
                {
                    away ??= $"Sub-host {store.Options.Host}: {problem}";
                }
            }
        }

        string? waiting = away ?? _evictor.Problem;
        return new()
        {
            State = _core.Pages.Ended ? "ended" : lost > 0 ? "lost" : waiting is not null ? "waiting" : degraded is not null ? "degraded" : "paging",
            Error = waiting ?? degraded ?? _core.Error,
            LimitPages = _core.LimitPages,
            ResidentPages = table.LocalPages - table.Count(PageState.Fetching) - table.PackedShare,
            PackedPages = table.Count(PageState.Packed),
            Unpacked = Interlocked.Read(ref counters.Unpacked),
            PeakResidentPages = _core.PeakPages,
            UnusedPages = table.Count(PageState.Unused),
            LostPages = lost,
            RemotePages = Each(_core.Copies.RemoteAt),
            Copies = _core.Copies.Wanted,
            ShortPages = _core.Copies.CountShort(),
            StaleCopies = _core.Copies.CountStale(),
            CopiesMade = _copies.Made,
            PageIns = counters.PageIns.Sum() + Interlocked.Read(ref counters.PageInsBefore),
            PageInsOfFree = Interlocked.Read(ref counters.PageInsOfFree),
            PageOuts = counters.PageOuts.Sum(),
            CleanDrops = Interlocked.Read(ref counters.CleanDrops),
            ZeroDrops = Interlocked.Read(ref counters.ZeroDrops),
            UnusedFaults = Interlocked.Read(ref counters.UnusedFaults) + Interlocked.Read(ref counters.UnusedAhead),
            WriteProtectFaults = Interlocked.Read(ref counters.WriteProtectFaults),
            TakenBack = Interlocked.Read(ref counters.TakenBack),
            SpuriousFaults = Interlocked.Read(ref counters.SpuriousFaults),
            Errors = Interlocked.Read(ref counters.Errors),
            Prefetched = Interlocked.Read(ref counters.Prefetched),
            PrefetchHits = Interlocked.Read(ref counters.PrefetchHits),
            PrefetchMisses = Interlocked.Read(ref counters.PrefetchMisses),
            RemoteLatency = _core.RemoteLatency.Read(),
            UnusedLatency = _core.UnusedLatency.Read(),
            RemoteTimeline = _core.RemoteLatency.ReadTimeline(),
            PageInsBySub = Each(i => Interlocked.Read(ref counters.PageIns[i])),
            PageOutsBySub = Each(i => Interlocked.Read(ref counters.PageOuts[i])),
            BytesIn = _core.Stores.Sum(s => s.BytesReceived) + Interlocked.Read(ref counters.BytesInBefore),
            BytesOut = _core.Stores.Sum(s => s.BytesSent) + Interlocked.Read(ref counters.BytesOutBefore),
            Outstanding = _core.Waits.Count,
        };
    }

    /// <summary>Stops, and lets go of its memory. Dispose the stores first: their threads use it.</summary>
    public void Dispose()
    {
        Stop();
        _copies.Dispose();
        _faults.Dispose();
        _evictor.Dispose();
        _core.Dispose();
    }

    /// <summary>
    /// One more sub-host, which has nothing of the VM: from now on pages may leave for it. Its index is the next one, or that of a source
    /// that has been emptied.
    /// </summary>
    /// <param name="store">Started, and connected; its owner's.</param>
    /// <exception cref="ArgumentException">Its index is another.</exception>
    public void AddStore(RemoteStore store)
    {
        var stores = _core.Stores;
        bool follows = store.Index == stores.Length;
        if (!follows && (store.Index != stores.Length - 1 || stores[^1].TakesPages || _core.Table.CopiesAt(store.Index) > 0))
        {
            throw new ArgumentException("Its index is not the next one.", nameof(store));
        }

        if (_core.Table.Places.IsPair(store.Index))
        {
            throw new ArgumentException($"A VM whose pages have two copies can have {Places.MaxPaired} sub-hosts in its life.", nameof(store));
        }

        store.Attach(_arrivals);
        _core.AddStore(store);
        _faults.Watch(store);
        _core.WakeEvictor();
        _core.WakeCopies();
    }

    /// <summary>Sub-host <paramref name="sub"/> is to leave: its pages go to the others, however long that takes, while the VM runs.</summary>
    public void Evacuate(int sub)
    {
        if (_core.FateOf(sub) == StoreFate.Serves)
        {
            _core.Decide(sub, StoreFate.Leaves);
            _core.Stores[sub].Evacuation.Start();
            _core.WakeEvictor();
        }
    }

    /// <summary>Sub-host <paramref name="sub"/> has left: it has no page any more, and its store may be disposed.</summary>
    public void Forget(int sub) => _core.Decide(sub, StoreFate.Gone);

    /// <summary>Pages of which sub-host <paramref name="sub"/> has a copy; 0 when one that was to leave may go.</summary>
    public long CopiesAt(int sub) => _core.Copies.CopiesAt(sub);

    /// <summary>Pages that have to go elsewhere before sub-host <paramref name="sub"/> may go.</summary>
    public long AloneAt(int sub) => _core.Copies.AloneAt(sub);

    /// <summary>Pages that sub-host <paramref name="sub"/> could still take; 0 when it is to leave.</summary>
    public long RoomAt(int sub) => _core.FateOf(sub) == StoreFate.Serves
        ? Math.Max(0, Math.Min(_core.Stores[sub].LimitPages, _core.Table.PageCount) - _core.Copies.CopiesAt(sub)) : 0;

    public StoreFate FateOf(int sub) => _core.FateOf(sub);

    /// <summary>
    /// Sub-host <paramref name="sub"/> is gone and will not come back: what only it had is lost, and the guest gets a memory error where it
    /// touches it. Disposes the store. Returns the pages that are lost now, which has been noted for the workers to come; the caller's.
    /// </summary>
    /// <exception cref="InvalidOperationException">The pager was stopped, or what is lost can't be noted: then it can be done again.</exception>
    public PageBitmap GiveUp(int sub)
    {
        _core.Decide(sub, StoreFate.Gone);
        // No answer of it can come any more, and a batch that waits for it fails.
        _core.Stores[sub].Dispose();
        _drain?.Abandon(sub);
        // What it has taken from the source in this moment is told apart from what it has not.
        SpinWait.SpinUntil(() => _core.Copies.Expected(sub) == 0, s_takesPatience);
        lock (_core.EvictionGate)
        {
            // No batch that was begun before is under way any more: none can make a page Remote there.
            foreach (var store in _core.Stores)
            {
                // What was at both is there alone from now on.
                _core.Copies.ForgetSpare(store.Index);
            }
        }

        _faults.GiveUp(sub);
        _core.WakeEvictor();
        NoteLost();
        if (_core.Table.Count(PageState.Lost) is > 0 and var count)
        {
            _core.Report(
                $"Sub-host {_core.Stores[sub].Options.Host} was given up, and with it the only copy of {count} pages: the guest gets a memory error where it touches one.");
        }

        var lost = new PageBitmap(_core.Table.PageCount);
        for (long page = 0; (page = _core.Table.NextWithContent(page)) >= 0; page++)
        {
            if (_core.Table[page].State == PageState.Lost)
            {
                lost.Fill(new(page, 1), true);
            }
        }

        return lost;
    }

    /// <summary>All that is lost is so for the workers to come too.</summary>
    /// <exception cref="InvalidOperationException">It can't be noted.</exception>
    private void NoteLost()
    {
        for (long page = 0; (page = _core.Table.NextWithContent(page)) >= 0;)
        {
            long first = page++;
            if (_core.Table[first].State != PageState.Lost)
            {
                continue;
            }

            // What a sub-host had lies together: one entry for all of a run.
            while (page < _core.Table.PageCount && _core.Table[page].State == PageState.Lost)
            {
                page++;
            }

            if (!_core.Lost.TryNote(new(first, page - first)))
            {
                throw new InvalidOperationException(
                    "Which pages are lost can't be noted in the worker's directory. Make room on its file system, and try again.");
            }
        }
    }

    private static void KeepLost(PageTable table, PageBitmap lost)
    {
        for (long from = 0; lost.NextRun(from, long.MaxValue, out var run); from = run.End)
        {
            for (long page = run.First; page < run.End; page++)
            {
                if (table[page].State == PageState.Unused)
                {
                    table.Set(new(page, 1), new(PageState.Lost));
                }
            }
        }
    }

    private long[] Each(Func<int, long> figure)
    {
        var figures = new long[_core.Stores.Length];
        for (int i = 0; i < figures.Length; i++)
        {
            figures[i] = figure(i);
        }

        return figures;
    }
}
