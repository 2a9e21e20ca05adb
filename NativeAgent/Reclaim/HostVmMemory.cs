using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using FCtrans.Contracts;

namespace FCtrans.Agent.Reclaim;

/// <summary>
/// The memory of a VM all of which lies on this host. A monitor has one client at a time: it is connected for each look and turn only,
/// so that it is free for others in between. Memory that is plugged in or pulled out meanwhile is noticed at the next look. One caller at a time.
/// </summary>
internal sealed class HostVmMemory : IVmMemory, IDisposable
{
    /// <summary>A shorter rest of a turn is not worth connecting to the monitor again.</summary>
    private const int ShortestRestMilliseconds = 25;

    // One client at a time: another's call may be under way.
    private static readonly TimeSpan s_monitorTimeout = TimeSpan.FromSeconds(2);

    private readonly QemuProcess _vm;
    private readonly bool _tracked;
    private GuestRam _ram = null!;
    private UnusedPages _pages = null!;
    private PageBitmap _unused = null!;
    private PageBitmap _ballooned = null!;
    private IReadOnlyList<MemoryDevice> _devices = [];
    private QemuMonitor? _monitor;
    private ProcessorCheck? _check;
    private HostReclaimTarget? _target;
    private VmReclaim? _reclaim;

    /// <param name="vm">Runs on this host.</param>
    /// <param name="tracked">A source's worker moves its memory: then holes are not memory never touched, and nothing is given back.</param>
    /// <exception cref="GuestRamException">Its memory can't be opened.</exception>
    /// <exception cref="MonitorException">QEMU does not answer.</exception>
    public HostVmMemory(QemuProcess vm, bool tracked)
    {
        _vm = vm;
        _tracked = tracked;
        using (Connect())
        {
            _devices = _monitor!.QueryMemoryDevices();
            Open(GuestRamFactory.Open(vm, _monitor, withPlugged: true));
        }
    }

    public IReadOnlyList<string> SubHosts => [];

    public long ReclaimedPages => 0;

    public UnusedSet NewSet() => new(_ram.PageCount);

    public UnusedFigures Look(UnusedSet set, IMemoryUseSink? sink)
    {
        using var connected = Connect();
        OpenAnewIfChanged();
        set.Resize(_ram.PageCount);
        _pages.Ballooned = _ballooned;
        var figures = _pages.Refresh(_unused);
        PageBitmap? holes = null;
        if (!_tracked)
        {
            _pages.NeverTouched?.LookAnewIfStale();
            holes = figures.Method == UnusedFigures.Buddy ? _pages.NeverTouched!.Pages : _unused;
        }

        set.Update(_unused, _ballooned, holes, sink);
        return figures.With(set);
    }

    public MemoryMapHead Map(UnusedSet set, GetMemoryMapRequest request, Action<MemoryMapRange> found)
    {
        var head = new MemoryMapHead();
        foreach (var block in _ram.Blocks)
        {
            head.RamBlocks.Add(block.Id);
        }

        using var hot = new PageBitmap(_ram.PageCount);
        if (_pages.Kernel is { } kernel && GuestLru.TryOpen(kernel) is { } lru)
        {
            // Of the last look: what is not in use is not looked at.
            lru.AddHot(_ram, _unused, hot);
            head.Hot = "active or referenced on the LRU lists of the guest's kernel";
        }

        new MemoryMapBuilder(_ram, set, head.Hot.Length > 0 ? hot : null, table: null, subHosts: 0)
            .Build((long)(request.GranularityBytes >> PageIndex.PageShift), request.Merge, found);
        return head;
    }

    public (ReclaimFigures Figures, UnusedFigures Seen) Turn(ReclaimLimits limits, bool settledOnly, CancellationToken stop)
    {
        using var connected = Connect();
        OpenAnewIfChanged();
        _pages.Ballooned = null;
        _check ??= new ProcessorCheck(Ask);
        _target ??= HostReclaimTarget.Attach(_ram, _vm.Pid);
        _reclaim ??= new VmReclaim(_ram, _pages, _target, _check) { Resting = Rest };
        // What goes on pays for knowing what changes; a single turn would not.
        _pages.Watch ??= settledOnly ? _target.OpenWriteWatch() : null;
        var figures = _reclaim.Turn(limits, settledOnly, stop);
        return (figures, _reclaim.Seen!);
    }

    public void Dispose() => Close();

    private void Open(GuestRam ram)
    {
        _ram = ram;
        _pages = UnusedPages.Open(ram, mayMap: !_tracked, Ask);
        _unused = new(_ram.PageCount);
        _ballooned = new(_ram.PageCount);
    }

    /// <summary>A DIMM has come or gone: the memory lies elsewhere on the guest's bus, and there is more or less of it.</summary>
    private void OpenAnewIfChanged()
    {
        var devices = _monitor!.QueryMemoryDevices();
        if (!devices.SequenceEqual(_devices))
        {
            var ram = GuestRamFactory.Open(_vm, _monitor, withPlugged: true);
            Close();
            Open(ram);
            _devices = devices;
        }
    }

    private void Close()
    {
        _check?.Dispose();
        _reclaim?.Dispose();
        _target?.Dispose();
        _check = null;
        _reclaim = null;
        _target = null;
        _unused.Dispose();
        _ballooned.Dispose();
        _pages.Dispose();
        _ram.Dispose();
    }

    private IReadOnlyList<GuestProcessor> Ask()
        => GuestProcessor.Ask(_monitor ?? throw new MonitorException(MonitorException.Closed, "QEMU's monitor has another client."));

    /// <summary>A turn's rest: the monitor is free for others meanwhile.</summary>
    private void Rest(int milliseconds, CancellationToken stop)
    {
        if (milliseconds < ShortestRestMilliseconds)
        {
            stop.WaitHandle.WaitOne(milliseconds);
            return;
        }

        _monitor?.Dispose();
        _monitor = null;
        stop.WaitHandle.WaitOne(milliseconds);
        try
        {
            _ = Connect();
        }
        catch (MonitorException)
        {
            // Somebody else is there: without an answer of the monitor the next batch is let go.
        }
    }

    private Connection Connect()
    {
        _monitor = QemuMonitor.Connect(_vm.MonitorPath, s_monitorTimeout);
        return new(this);
    }

    private readonly struct Connection(HostVmMemory owner) : IDisposable
    {
        public void Dispose()
        {
            owner._monitor?.Dispose();
            owner._monitor = null;
        }
    }
}
