using System.Diagnostics;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Reads the guest's faults and answers each by what the page table says; what needs the network is only asked for, so that many are
/// under way at once, and given to <see cref="PageArrivals"/> when it comes. One thread for both: on the way of a fault there is no
/// other that had to be woken.
/// <para>
/// A fault that needs memory while the hard limit is reached, or a request while too many are under way, is set aside and tried again when
/// <see cref="Wake"/> says that something has changed; all others go on meanwhile. Allocates nothing after it has begun.
/// </para>
/// </summary>
internal sealed class FaultThread : IDisposable
{
    private const int BatchEvents = 64;

    /// <summary>Pages of a store given up that are noted with one entry.</summary>
    private const int LostAtOnce = 4096;
    private const int MaxSetAside = 4096;

    /// <summary>While it can't be noted that pages are lost which somebody waits for.</summary>
    private const int UntoldMilliseconds = 100;

    /// <summary>While stores owe answers it is looked so often within the time until they are asked after whether any come.</summary>
    private const int LooksEach = 4;

    /// <summary>Places in what is polled: the wake-up, the userfaultfds, and from <see cref="_firstStore"/> on the stores.</summary>
    private const int Wakeup = 0;

    private const int FirstFaults = 1;

    private readonly PagingCore _core;
    private readonly EventFd _wakeup = new();
    private readonly Thread _thread;
    private readonly UffdMessage[] _messages = new UffdMessage[BatchEvents];
    private readonly Fault[] _aside = new Fault[MaxSetAside];
    private readonly bool[] _toFlush;
    private readonly UnusedFill _unused;
    private readonly Prefetcher _prefetcher;
    private readonly Fault[] _toFollow;
    private int _toFollowCount;
    private readonly PollDescriptor[] _waits;
    private readonly int _firstStore;
    private readonly int _mostAtOnce;
    private volatile bool _descriptorsAreOld = true;
    private int _polled;
    private long _lookMilliseconds = Timeout.Infinite;
    private long _lookedAt;
    private int _asideCount;
    private int _givenUp = -1;
    private volatile ManualResetEventSlim? _givenUpDone;
    private bool _untold;
    private volatile bool _starved;
    private volatile bool _stop;

    public FaultThread(PagingCore core)
    {
        _core = core;
        _toFlush = new bool[PageEntry.MaxSubs];
        _unused = new(core, SomeoneWaits);
        _prefetcher = new(core, _unused);
        _firstStore = FirstFaults + core.Pages.Uffds.All.Length;
        _mostAtOnce = BatchEvents * core.Pages.Uffds.All.Length;
        _toFollow = new Fault[_mostAtOnce];
        _waits = new PollDescriptor[_firstStore + PageEntry.MaxSubs];
        Array.Fill(_waits, new PollDescriptor { Fd = -1, Events = PollDescriptor.In });
        _waits[Wakeup].Fd = _wakeup.Descriptor;
        foreach (var store in core.Stores)
        {
            Watch(store);
        }

        _thread = new Thread(Run) { IsBackground = true, Name = "faults" };
    }

    /// <summary>Bytes that its loop has allocated; tests hold it to 0.</summary>
    public long AllocatedBytes { get; private set; }

    public void Start() => _thread.Start();

    /// <summary>Reads this store's answers too. From any thread, once the core has the store.</summary>
    public void Watch(RemoteStore store) => store.Demand.WhenConnectionChanges(ConnectionChanged);

    /// <summary>Room or a free request, from any thread; costs nothing when no fault was set aside.</summary>
    public void Wake()
    {
        if (_starved)
        {
            _wakeup.Signal();
        }
    }

    /// <summary>Reads no more faults: they wait in the kernel for whoever comes next.</summary>
    public void Stop()
    {
        _stop = true;
        _wakeup.Signal();
        if (!_thread.ThreadState.HasFlag(System.Threading.ThreadState.Unstarted))
        {
            _thread.Join();
        }
    }

    /// <summary>After <see cref="Stop"/>, when nobody can call <see cref="Wake"/> any more and the stores are disposed.</summary>
    public void Dispose() => _wakeup.Dispose();

    /// <summary>All pages that only a sub-host had that is gone are lost; returns when they are. Its store has been disposed.</summary>
    public void GiveUp(int sub)
    {
        using var done = new ManualResetEventSlim();
        _givenUpDone = done;
        Interlocked.Exchange(ref _givenUp, sub);
        _wakeup.Signal();
        while (!done.Wait(100))
        {
            if (_stop)
            {
                throw new InvalidOperationException("The paging has been stopped.");
            }
        }
    }

    private void GiveUpPages()
    {
        int sub = Interlocked.Exchange(ref _givenUp, -1);
        if (sub < 0)
        {
            return;
        }

        // What the other of two has is asked for there.
        _core.Stores[sub].Reroute();
        long patience = Environment.TickCount64 + 5000;
        var lost = new PageRange(0, 0);
        for (long page = 0; page < _core.Table.PageCount; page++)
        {
            var entry = _core.Table[page];
            while (_core.Table.Places.Contains(entry.Sub, sub) && entry.State == PageState.Busy && Environment.TickCount64 < patience)
            {
                // Reclaim has it and may put it back as it was; it waits for nobody that is gone.
                Thread.Sleep(1);
                entry = _core.Table[page];
            }

            if (_core.Table.Places.Contains(entry.Sub, sub) && _core.Copies.IsGone(entry.Sub)
                && (entry.State is PageState.Remote or PageState.Fetching)
                && _core.Table.TryMove(page, entry, entry.With(PageState.Lost)))
            {
                _core.WriteWanted.TryClear(page);
                if (lost.Count > 0 && (lost.End != page || lost.Count == LostAtOnce))
                {
                    Lose(lost);
                    lost = new(page, 0);
                }

                lost = lost.Count == 0 ? new(page, 1) : new(lost.First, lost.Count + 1);
            }
        }

        if (lost.Count > 0)
        {
            Lose(lost);
        }

        _givenUpDone!.Set();
    }

    /// <summary>They are Lost in the table.</summary>
    private void Lose(PageRange pages)
    {
        if (!_core.TryTellLost(pages))
        {
            // Who waits for one faults again, which is answered when it could be noted.
            for (long page = pages.First; page < pages.End; page++)
            {
                _core.Pages.Wake(new(page, 1));
            }
        }
    }

    private void ConnectionChanged()
    {
        _descriptorsAreOld = true;
        _wakeup.Signal();
        _core.WakeCopies();
    }

    private void Run()
    {
        long before = GC.GetAllocatedBytesForCurrentThread();
        while (!_stop)
        {
            // Whoever makes room after this sees the flag and signals; whoever made it before is seen by the retry.
            _starved = _asideCount > 0;
            Interlocked.MemoryBarrier();
            GiveUpPages();
            RetrySetAside();
            Flush();
            bool room = _asideCount <= MaxSetAside - _mostAtOnce;
            Wait(room);
            // Faults first: what they ask for is on its way while the answers are put in.
            if (room)
            {
                ReadFaults();
            }

            ReadAnswers();
            LookForAnswers();
            AllocatedBytes = GC.GetAllocatedBytesForCurrentThread() - before;
        }
    }

    /// <summary>Until there is a fault (if there is room to remember it), an answer, or a wake-up.</summary>
    private void Wait(bool faults)
    {
        if (_descriptorsAreOld)
        {
            _descriptorsAreOld = false;
            Interlocked.MemoryBarrier();
            var stores = _core.Stores;
            for (int i = 0; i < stores.Length; i++)
            {
                _waits[_firstStore + i].Fd = stores[i].Demand.Descriptor;
            }

            _polled = stores.Length;
            _lookMilliseconds = long.MaxValue;
            foreach (var store in stores)
            {
                _lookMilliseconds = Math.Min(_lookMilliseconds, Math.Max(1, (long)store.Options.ProbeAfter.TotalMilliseconds / LooksEach));
                // One may have come back that has what was asked of one that is away.
                store.Reroute();
            }
        }

        var uffds = _core.Pages.Uffds.All;
        for (int i = 0; i < uffds.Length; i++)
        {
            _waits[FirstFaults + i].Fd = faults ? uffds[i].Descriptor : -1;
        }

        Userfaultfd.Wait(_waits.AsSpan(0, _firstStore + _polled), _untold ? UntoldMilliseconds : IsOwed() ? (int)_lookMilliseconds : Timeout.Infinite);
        if (_waits[Wakeup].ReturnedEvents != 0)
        {
            _wakeup.Drain();
        }
    }

    private bool IsOwed()
    {
        foreach (var store in _core.Stores)
        {
            if (store.IsOwed)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>After <see cref="ReadAnswers"/>: what has come while this process stood still counts.</summary>
    private void LookForAnswers()
    {
        long now = Environment.TickCount64;
        long passed = now - _lookedAt;
        if (passed < _lookMilliseconds)
        {
            return;
        }

        _lookedAt = now;
        foreach (var store in _core.Stores)
        {
            store.LookForAnswers(Math.Min(passed, 2 * _lookMilliseconds));
        }
    }

    private void ReadFaults()
    {
        bool any = false;
        var uffds = _core.Pages.Uffds.All;
        for (int i = 0; i < uffds.Length; i++)
        {
            if (_waits[FirstFaults + i].ReturnedEvents != 0)
            {
                any = true;
                ReadFaults(uffds[i]);
            }
        }

        if (any)
        {
            Flush();
            Prefetch();
        }
    }

    /// <exception cref="KernelException">They can't be read. It ends the worker: the one that is started then may be able to, and this one would leave the guest standing still.</exception>
    private void ReadFaults(Userfaultfd uffd)
    {
        int count = uffd.ReadEvents(_messages);
        long now = Stopwatch.GetTimestamp();
        for (int i = 0; i < count; i++)
        {
            Take(_messages[i], now);
        }

        if (count < 0 && _core.Pages.Ended)
        {
            _stop = true;
        }
        else if (count < 0)
        {
            throw new KernelException("read the VM's faults", -count);
        }
    }

    private void ReadAnswers()
    {
        for (int i = 0; i < _polled; i++)
        {
            short events = _waits[_firstStore + i].ReturnedEvents;
            if (events == 0)
            {
                continue;
            }

            if ((events & PollDescriptor.In) != 0)
            {
                _core.Stores[i].Demand.ReadAnswers();
            }

            if ((events & ~PollDescriptor.In) != 0)
            {
                // It has broken, or was closed just now: not to be polled until it is another one.
                _waits[_firstStore + i].Fd = -1;
            }
        }
    }

    private void Take(in UffdMessage message, long now)
    {
        if (message.Event != UffdEvent.PageFault
            || !_core.Pages.Ram.TryPageAt(new HostAddress(message.Address), out long page))
        {
            Interlocked.Increment(ref _core.Counters.SpuriousFaults);
            return;
        }

        FailurePoint.Reach("main.fault.read");
        var fault = new Fault(page, message.Flags, message.ThreadId, now);
        if (!TryHandle(fault))
        {
            _aside[_asideCount++] = fault;
            _core.Waits.Add(page, fault.Thread, now);
        }
    }

    private void RetrySetAside()
    {
        int kept = 0;
        _untold = false;
        for (int i = 0; i < _asideCount; i++)
        {
            if (!TryHandle(_aside[i]))
            {
                _aside[kept++] = _aside[i];
            }
        }

        _asideCount = kept;
    }

    private void Flush()
    {
        for (int i = 0; i < _toFlush.Length; i++)
        {
            if (_toFlush[i])
            {
                _toFlush[i] = false;
                _core.Stores[i].Demand.Flush();
            }
        }

        // Behind them: what an unused page's walk has asked for. Whoever waits for such a page waits for this.
        _prefetcher.Flush();
    }

    /// <summary>After <see cref="Flush"/>: faults have been answered, and the demanded pages' requests have left, before these are even made.</summary>
    private void Prefetch()
    {
        for (int i = 0; i < _toFollowCount; i++)
        {
            _prefetcher.Faulted(_toFollow[i].Page, _toFollow[i].Thread, _toFollow[i].IsWrite);
        }

        _toFollowCount = 0;
        _prefetcher.Flush();
    }

    /// <summary>Looked at anew: what had come before and is still to be read shows again.</summary>
    private bool SomeoneWaits() => Userfaultfd.Wait(_waits.AsSpan(0, _firstStore + _polled), 0) > 0;

    private void Follow(in Fault fault)
    {
        if (_core.Prefetch && _toFollowCount < _toFollow.Length)
        {
            _toFollow[_toFollowCount++] = fault;
        }
    }

    /// <summary>False: it has to wait for room.</summary>
    private bool TryHandle(in Fault fault)
    {
        bool protection = fault.IsProtection;
        bool write = fault.IsWrite;
        while (true)
        {
            var entry = _core.Table[fault.Page];
            switch (entry.State)
            {
                case PageState.Busy:
                    // Its owner wakes who waits.
                    return true;

                case PageState.Unused:
                    if (!_core.HasRoom)
                    {
                        _core.WakeEvictor();
                        return false;
                    }

                    if (FillUnused(fault))
                    {
                        return true;
                    }

                    break;

                case PageState.Packed:
                    if (!_core.HasRoom)
                    {
                        _core.WakeEvictor();
                        return false;
                    }

                    if (_core.TryUnpack(fault.Page))
                    {
                        return true;
                    }

                    break;

                case PageState.Remote when _core.Copies.IsGone(entry.Sub):
                    _core.Table.TryMove(fault.Page, entry, entry.With(PageState.Lost));
                    break;

                case PageState.Remote:
                    int sub = _core.Copies.StoreToAsk(fault.Page, entry.Sub);
                    if (!_core.HasRoom || _core.Stores[sub].Demand.IsBusy)
                    {
                        _core.WakeEvictor();
                        return false;
                    }

                    if (_core.Table.TryMove(fault.Page, entry, entry.With(PageState.Fetching)))
                    {
                        FailurePoint.Reach("main.fault.fetching");
                        // In the meantime the page may have been elsewhere and back, with another sub-host beside it.
                        sub = _core.Table.Places.Contains(entry.Sub, sub) ? sub : _core.Copies.StoreToAsk(fault.Page, entry.Sub);
                        if (_core.Stores[sub].Demand.IsBusy)
                        {
                            _core.Table.TryMove(fault.Page, entry.With(PageState.Fetching), entry);
                            return false;
                        }

                        _core.Waits.Add(fault.Page, fault.Thread, fault.StartedAt);
                        _core.Stores[sub].Demand.Get(fault.Page, write);
                        _toFlush[sub] = true;
                        if (!_core.Stores[sub].Demand.IsConnected)
                        {
                            _core.Stores[sub].Reroute();
                        }

                        Follow(fault);
                        return true;
                    }

                    break;

                case PageState.Fetching:
                    _core.Waits.Add(fault.Page, fault.Thread, fault.StartedAt);
                    if (write)
                    {
                        _core.WriteWanted.TrySet(fault.Page);
                    }

                    bool came = _core.Table[fault.Page] != entry;
                    if (came && _core.Table[fault.Page].State is PageState.Resident or PageState.ResidentClean)
                    {
                        _core.Waits.Answered(fault.Page);
                    }

                    if (!write || !came)
                    {
                        Follow(fault);
                        return true;
                    }

                    // It has arrived in between, perhaps protected, and perhaps nobody saw the bit.
                    _core.WriteWanted.TryClear(fault.Page);
                    break;

                case PageState.Evicting when protection:
                    if (_core.TryMakeWritable(fault.Page, entry, byFaultThread: true))
                    {
                        Interlocked.Increment(ref _core.Counters.TakenBack);
                        Interlocked.Increment(ref _core.Counters.WriteProtectFaults);
                        _core.Heat.TakenBack(fault.Page);
                        _core.PageCame(fault.Page);
                        return true;
                    }

                    break;

                case PageState.Resident or PageState.ResidentClean when protection:
                    if (_core.TryMakeWritable(fault.Page, entry, byFaultThread: true))
                    {
                        Interlocked.Increment(ref _core.Counters.WriteProtectFaults);
                        return true;
                    }

                    break;

                case PageState.Resident or PageState.ResidentClean:
                    if (AnswerMissingHere(fault.Page, entry))
                    {
                        return true;
                    }

                    break;

                case PageState.Evicting:
                    // It is in the RAM file: the next try finds it there.
                    Interlocked.Increment(ref _core.Counters.SpuriousFaults);
                    _core.Pages.Wake(new(fault.Page, 1));
                    return true;

                default:
                    bool told = _core.TryTellLost(new(fault.Page, 1));
                    _untold |= !told;
                    return told;
            }
        }
    }

    private bool FillUnused(in Fault fault)
    {
        if (!_unused.TryBegin(fault.Page, fault.StartedAt))
        {
            return false;
        }

        if (_core.Prefetch)
        {
            // At once, not after the other faults: what it adds costs less than the fault that it saves.
            _prefetcher.Faulted(fault.Page, fault.Thread, fault.IsWrite, unused: true);
        }

        _unused.Fill();
        return true;
    }

    /// <summary>
    /// A missing fault on a page that is here: over already, or QEMU itself has discarded the page (a balloon), which then holds zeros.
    /// The kernel tells the two apart: where there is a page, it does not put another.
    /// </summary>
    private bool AnswerMissingHere(long page, PageEntry entry)
    {
        var busy = entry.With(PageState.Busy);
        if (!_core.Table.TryMove(page, entry, busy))
        {
            return false;
        }

        int errno = _core.Pages.Zero(page);
        _core.Table.Move(page, busy, errno == Errno.EEXIST ? entry : busy.With(PageState.Resident));
        _core.Pages.Wake(new(page, 1));
        Interlocked.Increment(ref _core.Counters.SpuriousFaults);
        return true;
    }

    private readonly record struct Fault(long Page, UffdFaultFlags Flags, uint Thread, long StartedAt)
    {
        public bool IsProtection => (Flags & UffdFaultFlags.Wp) != 0;

        public bool IsWrite => (Flags & (UffdFaultFlags.Wp | UffdFaultFlags.Write)) != 0;
    }
}
