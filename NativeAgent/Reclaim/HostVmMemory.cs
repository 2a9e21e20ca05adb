using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using FCtrans.Contracts;

namespace FCtrans.Agent.Reclaim;

/// <summary>
/// The memory of a VM all of which lies on this host. A monitor has one client at a time: it is connected for each look and turn only,
/// so that it is free for others in between. One caller at a time.
/// </summary>
internal sealed class HostVmMemory : IVmMemory, IDisposable
{
    // One client at a time: another's call may be under way.
    private static readonly TimeSpan s_monitorTimeout = TimeSpan.FromSeconds(2);

    private readonly QemuProcess _vm;
    private readonly bool _tracked;
    private readonly GuestRam _ram;
    private readonly UnusedPages _pages;
    private readonly PageBitmap _unused;
    private readonly PageBitmap _ballooned;
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
            _ram = GuestRamFactory.Open(vm, _monitor!);
        }

        _pages = UnusedPages.Open(_ram, mayMap: !tracked, () => GuestProcessor.Ask(_monitor!));
        _unused = new(_ram.PageCount);
        _ballooned = new(_ram.PageCount);
    }

    public IReadOnlyList<string> SubHosts => [];

    public long ReclaimedPages => 0;

    public UnusedSet NewSet() => new(_ram.PageCount);

    public UnusedFigures Look(UnusedSet set, IMemoryUseSink? sink)
    {
        using var connected = Connect();
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
        _pages.Ballooned = null;
        _check ??= new ProcessorCheck(() => GuestProcessor.Ask(_monitor!));
        _target ??= HostReclaimTarget.Attach(_ram, _vm.Pid);
        _reclaim ??= new VmReclaim(_ram, _pages, _target, _check);
        // What goes on pays for knowing what changes; a single turn would not.
        _pages.Watch ??= settledOnly ? _target.OpenWriteWatch() : null;
        var figures = _reclaim.Turn(limits, settledOnly, stop);
        return (figures, _reclaim.Seen!);
    }

    public void Dispose()
    {
        _check?.Dispose();
        _reclaim?.Dispose();
        _target?.Dispose();
        _unused.Dispose();
        _ballooned.Dispose();
        _pages.Dispose();
        _ram.Dispose();
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
