using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Paging;

/// <summary>What the threads of one pager share. Each member says which of them may use it; all are safe from any thread.</summary>
internal sealed unsafe class PagingCore : IDisposable
{
    private static readonly PageEntry s_packed = new(PageState.Packed);

    private long _limit;
    private long _peak;
    private long _came;
    private long _tellAt = long.MaxValue;
    private EventWaitHandle? _tell;
    private volatile string? _error;
    private volatile bool _prefetch;
    private readonly int[] _fates = new int[PageEntry.MaxSubs];
    private volatile RemoteStore[] _stores;
    private Action _wakeEvictor = static () => { };
    private Action _wakeFaults = static () => { };
    private Action _wakeCopies = static () => { };

    public PagingCore(PagerOptions options)
    {
        Pages = new(options.Ram, options.Uffds, options.MemoryErrors);
        Table = options.Table;
        Packed = options.Packed;
        Table.Packed = options.Packed;
        _stores = [.. options.Stores];
        TrackUnused = options.TrackUnused;
        Queue = new(Table.PageCount, options.LimitPages + (options.LimitPages / 32));
        WriteWanted = new(Table.PageCount);
        Heat = new(Table.PageCount, options.Pinned) { Policy = options.Policy };
        SeenFree = new(Table.PageCount);
        Counters = new();
        Waits = new(RemoteLatency);
        foreach (int gone in options.Gone)
        {
            _fates[gone] = (int)StoreFate.Gone;
        }

        Copies = new(this, options);
        Lost = new(Table.PageCount, options.StateDirectory);
        LimitPages = options.LimitPages;
        Prefetch = options.Prefetch;
    }

    public GuestPages Pages { get; }

    public PageTable Table { get; }

    /// <summary>What lies packed beside the RAM files. A page's slot is changed by the owner of the page (Busy) only.</summary>
    public PackedPages? Packed { get; }

    /// <summary>By index. Grows while the VM runs: whoever needs it to stay as it is for a moment keeps the array.</summary>
    public RemoteStore[] Stores => _stores;

    public bool TrackUnused { get; }

    /// <summary>Where copies are and may go; each member says who may use it.</summary>
    public PageCopies Copies { get; }

    /// <summary>What is lost for good.</summary>
    public LostPages Lost { get; }

    public bool Prefetch
    {
        get => _prefetch;
        set => _prefetch = value;
    }

    /// <summary>Held by whoever has a batch open at the stores' bulk channels, which take one at a time: the evictor or reclaim.</summary>
    public Lock BulkGate { get; } = new();

    /// <summary>Pages here, oldest first.</summary>
    public PageQueue Queue { get; }

    /// <summary>
    /// A write waits for this page, which was asked for by a read. Set by the fault thread, which then looks at the page's state again;
    /// read by whoever puts the page in, after it has changed that state: one of the two sees the other.
    /// </summary>
    public AtomicPageBits WriteWanted { get; }

    /// <summary>Which pages the evictor passes over.</summary>
    public PageHeat Heat { get; }

    /// <summary>
    /// Pages that the guest had free at the last look. The thread that looks writes it a word at a time while others read: for counting
    /// and choosing only, never to decide what a page is.
    /// </summary>
    public PageBitmap SeenFree { get; }

    public PagingCounters Counters { get; }

    /// <summary>Of the faults whose page came from a sub-host, also when it was under way already.</summary>
    public LatencyHistogram RemoteLatency { get; } = new();

    /// <summary>The faults that wait now; each member says who may use it.</summary>
    public FaultWaits Waits { get; }

    public LatencyHistogram UnusedLatency { get; } = new();

    /// <summary>Held by the evictor through each of its steps: whoever holds it knows that no batch is under way.</summary>
    public Lock EvictionGate { get; } = new();

    /// <summary>A store that is on its way out still has copies of pages.</summary>
    public bool IsEvacuating
    {
        get
        {
            for (int i = 0; i < Stores.Length; i++)
            {
                // A name that a pair has of one that is gone is not looked at.
                if ((FateOf(i) == StoreFate.Leaves && Copies.CopiesAt(i) > 0) || (FateOf(i) == StoreFate.Gone && Table.CopiesAt(i) > 0))
                {
                    return true;
                }
            }

            return false;
        }
    }

    public long LimitPages
    {
        get => Volatile.Read(ref _limit);
        set
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 256);
            Volatile.Write(ref _limit, value);
        }
    }

    /// <summary>The evictor begins above this …</summary>
    public long HighPages => LimitPages - Math.Max(LimitPages / 50, 16);

    /// <summary>… and stops here.</summary>
    public long LowPages => LimitPages - Math.Max(LimitPages / 25, 32);

    /// <summary>No fault is served beyond this: it waits for the evictor.</summary>
    public long HardPages => LimitPages + LimitPages * 3 / 100;

    public bool HasRoom => Table.LocalPages < HardPages;

    public long PeakPages => Volatile.Read(ref _peak);

    /// <summary>The last thing that went wrong; null if nothing did.</summary>
    public string? Error => _error;

    public void Connect(Action wakeEvictor, Action wakeFaults, Action wakeCopies)
    {
        _wakeCopies = wakeCopies;
        _wakeEvictor = wakeEvictor;
        _wakeFaults = wakeFaults;
    }

    /// <summary>Sets <paramref name="then"/> once, after so many more pages have come. One thread.</summary>
    public void TellAfter(long pages, EventWaitHandle then)
    {
        _tell = then;
        long at = Volatile.Read(ref _came) + pages;
        Interlocked.Exchange(ref _tellAt, at);
        if (Volatile.Read(ref _came) >= at)
        {
            then.Set();
        }
    }

    /// <summary>A page has come: remember it, and let the evictor know when there are too many.</summary>
    public void PageCame(long page)
    {
        Queue.Push(page);
        if (Interlocked.Increment(ref _came) == Volatile.Read(ref _tellAt))
        {
            _tell!.Set();
        }

        long local = Table.LocalPages;
        if (local > Volatile.Read(ref _peak))
        {
            // A lost race loses one of two near-equal peaks.
            Volatile.Write(ref _peak, local);
        }

        if (local > HighPages)
        {
            _wakeEvictor();
        }
    }

    /// <summary>There is room again, or another request may be made: faults that had to wait may try again.</summary>
    public void WakeFaults() => _wakeFaults();

    /// <summary>One more store, at the place of its index: the next, or that of a source that has been emptied. One thread at a time.</summary>
    public void AddStore(RemoteStore store)
    {
        RemoteStore[] stores = _stores;
        if (store.Index < stores.Length)
        {
            // What it has counted stays in the sums, and is not the new one's.
            Interlocked.Add(ref Counters.PageInsBefore, Interlocked.Exchange(ref Counters.PageIns[store.Index], 0));
            Interlocked.Add(ref Counters.BytesInBefore, stores[store.Index].BytesReceived);
            Interlocked.Add(ref Counters.BytesOutBefore, stores[store.Index].BytesSent);
            stores = [.. stores];
            stores[store.Index] = store;
        }
        else
        {
            stores = [.. stores, store];
        }

        Decide(store.Index, StoreFate.Serves);
        _stores = stores;
    }

    /// <summary>A store has come or gone: there may be something to do for copies.</summary>
    public void WakeCopies() => _wakeCopies();

    public StoreFate FateOf(int sub) => (StoreFate)Volatile.Read(ref _fates[sub]);

    public void Decide(int sub, StoreFate fate) => Volatile.Write(ref _fates[sub], (int)fate);

    public void WakeEvictor() => _wakeEvictor();

    public void Report(string error)
    {
        Interlocked.Increment(ref Counters.Errors);
        _error = error;
    }

    /// <summary>
    /// A page has just become Lost in the table, or somebody touches one that is: from now on that is a memory error, once it has been noted
    /// for the workers to come. False: it could not be noted. Then nobody has been told or woken, and it has to be tried again.
    /// </summary>
    public bool TryTellLost(PageRange pages)
    {
        if (!Lost.TryNote(pages))
        {
            Report("Which pages are lost can't be noted in the worker's directory, and who touches one waits. Make room on its file system.");
            return false;
        }

        FailurePoint.Reach("main.lost.noted");
        for (long page = pages.First; page < pages.End; page++)
        {
            int errno = Pages.Poison(page);
            if (errno is 0 or Errno.EEXIST)
            {
                Waits.Over(new(page, 1));
                Pages.Wake(new(page, 1));
            }
            else if (!Pages.Ended)
            {
                // Woken it would fault again at once, for ever. So it waits as it would for a sub-host that is away.
                Report($"Page {page} is lost, and this host's kernel can't make that a memory error (Linux 6.6 or later can): whoever touches it waits for ever.");
            }
        }

        return true;
    }

    /// <summary>
    /// Puts a packed page into the RAM file, and wakes who waits for it. False when it is packed no longer: look again. From then on it is a page like
    /// any other, and never packed again here.
    /// </summary>
    public bool TryUnpack(long page)
    {
        var busy = s_packed.With(PageState.Busy);
        if (!Table.TryMove(page, s_packed, busy))
        {
            return false;
        }

        byte* content = stackalloc byte[PageIndex.PageSize];
        int read = Packed!.TryGet(page, content, out bool found);
        if (!found)
        {
            // Whoever waits for it waits for the next worker, which reads it anew: no thread of this one may go on and leave the page Busy.
            Environment.FailFast($"This worker has to begin again: page {page} of the VM lies packed on this host, and can't be read ({Errno.Name(read)}).");
        }

        int errno = Pages.Copy(page, content, protect: false);
        bool here = errno is Errno.None or Errno.EEXIST;
        FailurePoint.Reach("main.unpacked");
        if (errno == Errno.EEXIST)
        {
            // Nobody but us fills it.
            Interlocked.Increment(ref Counters.Errors);
        }

        if (here)
        {
            // While nobody can have the page leave: from now on only the file counts, and then perhaps only a sub-host.
            RemovePacked(new(page, 1));
        }
        else if (!Pages.Ended)
        {
            Report("The VM could not be given a page of its memory. Free some memory on this host.");
            Thread.Sleep(10);
        }

        Table.Move(page, busy, here ? busy.With(PageState.Resident) : s_packed);
        Pages.Wake(new(page, 1));
        if (here)
        {
            Interlocked.Increment(ref Counters.Unpacked);
            PageCame(page);
            Waits.Over(new(page, 1));
        }

        return true;
    }

    /// <summary>Empties slots whose pages are Busy, and the caller's.</summary>
    public void RemovePacked(PageRange pages)
    {
        try
        {
            Packed?.Remove(pages);
        }
        catch (KernelException e)
        {
            Environment.FailFast($"This worker has to begin again: {e.Message}");
        }
    }

    /// <summary>
    /// Lifts the protection of a page that is here, and wakes who waits for it. False when the page is no longer
    /// <paramref name="entry"/>: look again.
    /// </summary>
    /// <param name="byFaultThread">Nobody reads faults meanwhile.</param>
    public bool TryMakeWritable(long page, PageEntry entry, bool byFaultThread = false)
    {
        var busy = entry.With(PageState.Busy);
        if (!Table.TryMove(page, entry, busy))
        {
            return false;
        }

        int errno = Pages.Unprotect(new(page, 1));
        FailurePoint.Reach("main.unprotected");
        Table.Move(page, busy, entry.With(PageState.Resident));
        if (!byFaultThread)
        {
            // Who was woken by that may have missed the page since (QEMU discards what a balloon takes), and found it Busy.
            Pages.Wake(new(page, 1));
        }

        if (errno != 0 && !Pages.Ended)
        {
            Interlocked.Increment(ref Counters.Errors);
        }

        return true;
    }

    public void Dispose()
    {
        Copies.Dispose();
        Lost.Dispose();
        Queue.Dispose();
        WriteWanted.Dispose();
        Heat.Dispose();
        SeenFree.Dispose();
        Pages.Watch?.Dispose();
    }
}
