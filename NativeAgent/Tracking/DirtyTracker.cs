using FCtrans.Agent.Injection;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Tracking;

/// <summary>
/// Tells which pages a running QEMU has written since the last look, without its help: its RAM is write-protected by an
/// asynchronous userfaultfd (the kernel lifts the protection of a page at its first write, nobody waits), and PAGEMAP_SCAN
/// reports and re-arms the written pages in one step (Linux 6.7, admin-guide/mm/pagemap.rst). Discards by the guest
/// (balloon, free page reporting) are not reported: they show up as never touched.
/// Owns the userfaultfd and QEMU's copy of it: when this is disposed QEMU runs as before.
/// </summary>
internal sealed class DirtyTracker : IDisposable
{
    private readonly GuestRam _ram;
    private readonly int _processId;
    private readonly PageRegion[] _regions = GC.AllocateArray<PageRegion>(16 * 1024, pinned: true);
    private readonly Userfaultfd _userfaultfd;
    private readonly PagemapScan _scan;

    private DirtyTracker(GuestRam ram, int processId, Userfaultfd userfaultfd)
    {
        _ram = ram;
        _processId = processId;
        _userfaultfd = userfaultfd;
        _scan = new PagemapScan(processId);
    }

    /// <summary>Begins: all that is written after this call is reported by the next harvest.</summary>
    /// <exception cref="KernelException">The kernel lacks what this needs (Linux 6.7), or the range has an owner already.</exception>
    public static DirtyTracker Start(GuestRam ram, int processId)
    {
        var userfaultfd = UserfaultfdInjector.Open(processId);
        DirtyTracker? tracker = null;
        try
        {
            userfaultfd.Api(UffdFeatures.Tracking);
            foreach (var block in ram.Blocks)
            {
                userfaultfd.Register(block.MappedAt, (ulong)block.PageCount << PageIndex.PageShift, UffdRegisterMode.Wp);
            }

            tracker = new DirtyTracker(ram, processId, userfaultfd);
            // The first look arms every page and reports all of them; what it says is of no use.
            tracker.Harvest(null);
            return tracker;
        }
        catch
        {
            userfaultfd.Dispose();
            tracker?._scan.Dispose();
            UserfaultfdInjector.CloseInTarget(processId);
            throw;
        }
    }

    /// <summary>What a tracker that was killed has left in QEMU goes: its userfaultfd and with it all protection.</summary>
    public static void RemoveLeftBehind(int processId) => UserfaultfdInjector.CloseInTarget(processId);

    /// <summary>Adds the pages written since the last harvest to <paramref name="dirty"/> and arms them again.</summary>
    /// <returns>How many they are.</returns>
    public long Harvest(PageBitmap? dirty)
    {
        long pages = 0;
        foreach (var block in _ram.Blocks)
        {
            var position = block.MappedAt;
            var end = block.MappedAt + ((ulong)block.PageCount << PageIndex.PageShift);
            while (position.Value < end.Value)
            {
                int count = _scan.HarvestWritten(ref position, end, _regions);
                if (count < 0)
                {
                    throw new KernelException("Harvesting the pages that the guest wrote (PAGEMAP_SCAN)", -count);
                }

                foreach (ref readonly var region in _regions.AsSpan(0, count))
                {
                    long first = block.FirstPage + (long)((region.Start - block.MappedAt.Value) >> PageIndex.PageShift);
                    long length = (long)((region.End - region.Start) >> PageIndex.PageShift);
                    pages += length;
                    dirty?.Fill(new PageRange(first, length), true);
                }
            }
        }

        return pages;
    }

    /// <summary>Lifts all protection and removes every trace from QEMU. Nothing to do when QEMU has ended.</summary>
    public void Dispose()
    {
        _scan.Dispose();
        try
        {
            foreach (var block in _ram.Blocks)
            {
                _userfaultfd.Unregister(block.MappedAt, (ulong)block.PageCount << PageIndex.PageShift);
            }

            _userfaultfd.Dispose();
            UserfaultfdInjector.CloseInTarget(_processId);
        }
        catch (KernelException)
        {
            // QEMU has ended, and its memory with it.
            _userfaultfd.Dispose();
        }
    }
}
