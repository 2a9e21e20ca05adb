using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Reclaim;
using FCtrans.Agent.Tracking;
using FCtrans.Contracts;

namespace FCtrans.Agent.Workers;

/// <summary>
/// Keeps a split VM free of what its guest has freed: soon after the VM has begun to run here, and again and again, finds the guest's free
/// memory and drops it, here and on the sub-hosts. So memory that the guest takes afresh never comes over the network. A thread of its own.
/// Whoever else looks at the guest's memory, or wants a turn at once, does so through this, from any thread: one at a time.
/// </summary>
internal sealed class MainReclaim : IVmMemory, IDisposable
{
    private const int FirstMilliseconds = 250;
    private const int LongestMilliseconds = 4000;

    /// <summary>While the guest takes memory: what it frees next is to be known before it takes that again.</summary>
    private const int BusyMilliseconds = 500;

    /// <summary>So many pages that came since the last turn make the guest busy.</summary>
    private const long BusyPages = 512;

    private static readonly TimeSpan s_monitorTimeout = TimeSpan.FromSeconds(1);

    private static readonly ReclaimLimits s_limits = new() { ProcessorPercent = 25 };

    /// <summary>A shorter rest of a turn is not worth connecting to the monitor again.</summary>
    private const int ShortestRestMilliseconds = 25;

    /// <summary>Held through each turn, rests and all: turns come one after the other. Taken before <see cref="_gate"/>.</summary>
    private readonly Lock _turnGate = new();

    /// <summary>
    /// Held through each look and turn, but for a turn's rests, and while the table is read: after <see cref="Dispose"/> has had it there
    /// are no more of these.
    /// </summary>
    private readonly Lock _gate = new();

    private readonly int _processId;
    private readonly Pager _pager;
    private readonly PagingReclaimTarget _target;
    private readonly WriteWatch _watch;
    private readonly GuestHeat _guestHeat;
    private readonly KernelPins _kernelPins;
    private readonly CancellationTokenSource _stop = new();
    /// <summary>Not disposed: the pager, which outlives this, may set it at any time.</summary>
    private readonly AutoResetEvent _busy = new(false);
    private readonly PageBitmap _unused;
    private readonly PageBitmap _ballooned;
    private readonly PageBitmap _absent;
    private Thread? _thread;
    private QemuMonitor? _monitor;
    private GuestRam? _ram;
    private UnusedPages? _pages;
    private ProcessorCheck? _check;
    private VmReclaim? _reclaim;
    private UnusedPages? _pagesBesides;
    private bool _resting;
    private long _freedPages;
    private long _turns;
    private volatile IReadOnlyList<string> _subHosts;
    private volatile bool _disposed;

    /// <param name="pager">Of the VM.</param>
    /// <param name="processId">The VM's QEMU, on this host.</param>
    /// <param name="subHosts">As the page table counts them.</param>
    /// <param name="keepPinned">Keeps which pages stay here, for the worker that comes after this one.</param>
    public MainReclaim(Pager pager, int processId, IReadOnlyList<string> subHosts, Action<PageBitmap> keepPinned)
    {
        _processId = processId;
        _pager = pager;
        _subHosts = subHosts;
        _target = pager.OpenReclaimTarget();
        _watch = pager.OpenWriteWatch();
        _guestHeat = pager.OpenGuestHeat();
        _kernelPins = pager.OpenKernelPins(keepPinned);
        _unused = new(pager.PageCount);
        _ballooned = new(pager.PageCount);
        _absent = new(pager.PageCount);
    }

    /// <summary>By index. Another list where a sub-host has been added.</summary>
    public IReadOnlyList<string> SubHosts
    {
        get => _subHosts;
        set => _subHosts = value;
    }

    /// <summary>Pages given back since this worker began.</summary>
    public long ReclaimedPages => Volatile.Read(ref _freedPages);

    /// <summary>From now on it gives back by itself, and for whoever asks: once no page of the VM is at the source any more.</summary>
    public void Start()
    {
        if (_thread is null)
        {
            _thread = new Thread(Run) { IsBackground = true, Name = "reclaim" };
            _thread.Start();
        }
    }

    public UnusedSet NewSet() => new(_pager.PageCount);

    public UnusedFigures Look(UnusedSet set, IMemoryUseSink? sink) => Connected(() =>
    {
        // A turn that rests is in the middle of its own look.
        var pages = _resting ? _pagesBesides ??= UnusedPages.Open(_ram!, mayMap: false, Ask) : _pages!;
        pages.Ballooned = _ballooned;
        var figures = pages.Refresh(_unused);
        _pager.CopyUnused(_absent);
        set.Update(_unused, _ballooned, _absent, sink);
        return figures.With(set);
    });

    public MemoryMapHead Map(UnusedSet set, GetMemoryMapRequest request, Action<MemoryMapRange> found)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            var head = new MemoryMapHead { Hot = "came back soon after it had left, is active or referenced on the LRU lists of the guest's kernel, or is that kernel's own" };
            var subHosts = SubHosts;
            head.Hosts.AddRange(subHosts);
            foreach (var block in _ram!.Blocks)
            {
                head.RamBlocks.Add(block.Id);
            }

            using var hot = new PageBitmap(_pager.PageCount);
            _pager.AddHotTo(hot);
            hot.AndNot(set.NeverTouched);
            hot.AndNot(set.Free);
            hot.AndNot(set.Ballooned);
            _pager.Map(_ram, set, hot, subHosts.Count).Build((long)(request.GranularityBytes >> PageIndex.PageShift), request.Merge, found);
            return head;
        }
    }

    public (ReclaimFigures Figures, UnusedFigures Seen) Turn(ReclaimLimits limits, bool settledOnly, CancellationToken stop)
    {
        if (_thread is null)
        {
            throw new InvalidOperationException(
                "The VM's free memory is not given back: either it was split without tracking it (-TrackUnused:$false), or a part of it still is at the source.");
        }

        lock (_turnGate)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            using var either = CancellationTokenSource.CreateLinkedTokenSource(stop, _stop.Token);
            return Connected(() => Take(limits, settledOnly, either.Token));
        }
    }

    /// <summary>How many times the guest's free memory was looked for, and what was found was given back, since this worker began.</summary>
    public long Turns => Volatile.Read(ref _turns);

    /// <summary>Before the pager is stopped and the stores are disposed.</summary>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _stop.Cancel();
        _target.Stop();
        _thread?.Join();
        lock (_turnGate)
        lock (_gate)
        {
            _disposed = true;
            _check?.Dispose();
            _reclaim?.Dispose();
            _pages?.Dispose();
            _pagesBesides?.Dispose();
            _ram?.Dispose();
            _target.Dispose();
            _guestHeat.Dispose();
            _unused.Dispose();
            _ballooned.Dispose();
            _absent.Dispose();
            _stop.Dispose();
        }
    }

    /// <summary>
    /// What it does not expect ends the worker: pages that it holds would stay Busy, and whoever touches one would wait for ever. The worker
    /// that is started then finds out what each page is.
    /// </summary>
    private void Run()
    {
        int pause = FirstMilliseconds;
        bool first = true;
        string last = "";
        while (!Pause(ref pause))
        {
            _pager.TellAfter(BusyPages, _busy);
            try
            {
                lock (_turnGate)
                {
                    // Where pages have to leave, those that are free leave first: that costs less than to send others.
                    Connected(() => Take(s_limits, settledOnly: !first && !_pager.IsFull, _stop.Token));
                }

                first = false;
            }
            catch (VmEndedException)
            {
                return;
            }
            catch (Exception e) when (e is MonitorException or IOException or KernelException or GuestRamException)
            {
                // Somebody else uses the monitor, or the VM is ending: the next turn tells.
                if (e.Message != last)
                {
                    last = e.Message;
                    WorkerLog.Write($"reclaim: {e.Message}");
                }
            }

            pause = Math.Min(pause * 2, LongestMilliseconds);
        }
    }

    /// <summary>So long, or less when the guest becomes busy; then <paramref name="milliseconds"/> is what it should have been. True: stop.</summary>
    private bool Pause(ref int milliseconds)
    {
        long began = Environment.TickCount64;
        int woken = WaitHandle.WaitAny([_stop.Token.WaitHandle, _busy], milliseconds);
        if (woken == 1)
        {
            milliseconds = BusyMilliseconds;
            int left = (int)(began + BusyMilliseconds - Environment.TickCount64);
            return left > 0 && _stop.Token.WaitHandle.WaitOne(left);
        }

        return woken == 0;
    }

    private (ReclaimFigures Figures, UnusedFigures Seen) Take(ReclaimLimits limits, bool settledOnly, CancellationToken stop)
    {
        _pages!.Ballooned = null;
        var figures = _reclaim!.Turn(limits, settledOnly, stop);
        _pagesBesides?.Dispose();
        _pagesBesides = null;
        if (_pages.Kernel is { } kernel)
        {
            _guestHeat.Look(kernel, _ram!);
            LookAtKernel();
        }

        Volatile.Write(ref _freedPages, _freedPages + figures.FreedPages);
        Volatile.Write(ref _turns, _turns + (limits.WhatIf ? 0 : 1));
        return (figures, _reclaim.Seen!);
    }

    private void LookAtKernel()
    {
        if (_reclaim!.Seen!.Method != UnusedFigures.Buddy)
        {
            return;
        }

        try
        {
            _kernelPins.Look(_pages!, _ram!, _pager.SeenFree);
        }
        catch (MonitorException)
        {
            // Somebody else has taken the monitor while the turn rested: it is looked at after the next.
        }
    }

    /// <summary>Does something with the guest's RAM open and its monitor connected, which is free for others afterwards: it has one client at a time.</summary>
    /// <exception cref="VmEndedException">The VM has ended.</exception>
    private T Connected<T>(Func<T> work)
    {
        lock (_gate)
        {
            if (_disposed || _stop.IsCancellationRequested || QemuProcesses.TryOpen(_processId) is not { } process)
            {
                throw new VmEndedException();
            }

            try
            {
                Connect(process);
                if (_reclaim is null)
                {
                    _ram ??= GuestRamFactory.Open(process, _monitor);
                    _ram.Beside = _pager.Packed;
                    _pages ??= UnusedPages.Open(_ram, mayMap: false, Ask);
                    _pages.Watch = _watch;
                    _check ??= new ProcessorCheck(Ask);
                    _reclaim = new(_ram, _pages, _target, _check, _pager.SeenFree) { Resting = Rest };
                }

                return work();
            }
            finally
            {
                _monitor?.Dispose();
                _monitor = null;
            }
        }
    }

    private void Connect(QemuProcess process)
    {
        _monitor = QemuMonitor.Connect(process.MonitorPath, s_monitorTimeout);
        _monitor.CommandTimeout = s_monitorTimeout;
    }

    private IReadOnlyList<GuestProcessor> Ask()
        => GuestProcessor.Ask(_monitor ?? throw new MonitorException(MonitorException.Closed, "QEMU's monitor has another client."));

    /// <summary>A turn's rest: whoever else wants to look, or to talk to the monitor, does so now.</summary>
    private void Rest(int milliseconds, CancellationToken stop)
    {
        if (milliseconds < ShortestRestMilliseconds)
        {
            stop.WaitHandle.WaitOne(milliseconds);
            return;
        }

        _monitor?.Dispose();
        _monitor = null;
        _resting = true;
        _gate.Exit();
        try
        {
            stop.WaitHandle.WaitOne(milliseconds);
        }
        finally
        {
            _gate.Enter();
            _resting = false;
        }

        try
        {
            if (QemuProcesses.TryOpen(_processId) is { } process)
            {
                Connect(process);
            }
        }
        catch (MonitorException)
        {
            // Somebody else is there: without an answer of the monitor the next batch is let go.
        }
    }
}
