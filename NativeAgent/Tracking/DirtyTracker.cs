using FCtrans.Agent.Injection;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Tracking;

/// <summary>
/// Tells which pages a running QEMU has written since the last look, without its help: its RAM is write-protected by an
/// asynchronous userfaultfd (the kernel lifts the protection of a page at its first write, nobody waits), and PAGEMAP_SCAN
/// reports and re-arms the written pages in one step (Linux 6.7, admin-guide/mm/pagemap.rst). Discards by the guest
/// (balloon, free page reporting) are not reported: they show up as never touched.
/// <para>
/// Only where the RAM file has data is anything armed or looked at: a page that is a hole has no entry to arm, and the guest's first write to
/// it makes it data that was never armed, which counts as written. So the cost is that of the memory the VM has touched, not of its size: of
/// 352 GiB the entries alone would take 700 MiB of page tables in QEMU and seconds to fill.
/// </para>
/// Owns the userfaultfd and QEMU's copy of it: when this is disposed QEMU runs as before.
/// </summary>
internal sealed class DirtyTracker : IDisposable
{
    /// <summary>What one page of page table entries maps. Data is looked for in this grain: asking for each hole would cost more than it saves.</summary>
    private const long Grain = 2 << 20;

    private readonly GuestRam _ram;
    private readonly int _processId;
    private readonly PageRegion[] _regions = GC.AllocateArray<PageRegion>(16 * 1024, pinned: true);
    private readonly Userfaultfd _userfaultfd;
    private readonly PagemapScan _scan;

    /// <summary>By block: the grains that have been armed whole.</summary>
    private readonly bool[][] _armed;

    private DirtyTracker(GuestRam ram, int processId, Userfaultfd userfaultfd)
    {
        _ram = ram;
        _processId = processId;
        _userfaultfd = userfaultfd;
        _scan = new PagemapScan(processId);
        _armed = [.. ram.Blocks.ToArray().Select(block => new bool[GrainsOf(block)])];
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
            // Arms all that is there; what it says is of no use.
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
        for (int i = 0; i < _armed.Length; i++)
        {
            var block = _ram.Blocks[i];
            for (long at = 0; NextData(block, _armed[i], at, out var part); at = part.End)
            {
                pages += part.Armed ? Harvest(block, part, dirty) : Arm(block, _armed[i], part, dirty);
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

    private static long GrainsOf(RamBlock block) => ((block.PageCount << PageIndex.PageShift) + Grain - 1) / Grain;

    /// <summary>The next part of a block that has data, in whole grains that are all armed, or all not.</summary>
    private static bool NextData(RamBlock block, bool[] armed, long from, out Part part)
    {
        long bytes = block.PageCount << PageIndex.PageShift;
        long start = NextGrain(from);
        if (start == bytes)
        {
            part = default;
            return false;
        }

        long end = Math.Min(start + Grain, bytes);
        while (end < bytes && armed[end / Grain] == armed[start / Grain] && NextGrain(end) == end)
        {
            end = Math.Min(end + Grain, bytes);
        }

        part = new Part(start, end, armed[start / Grain]);
        return true;

        long NextGrain(long offset) => SparseFile.NextData(block.File, offset) is >= 0 and var data && data < bytes ? data & -Grain : bytes;
    }

    /// <summary>Arms what was a hole at the harvest before: all data in it is new. (The look itself calls each page of it written.)</summary>
    private long Arm(RamBlock block, bool[] armed, Part part, PageBitmap? dirty)
    {
        Harvest(block, part, null);
        armed.AsSpan((int)(part.Start / Grain), (int)((part.End - part.Start + Grain - 1) / Grain)).Fill(true);
        long pages = 0;
        for (long at = part.Start; at < part.End && SparseFile.NextData(block.File, at) is >= 0 and var data && data < part.End;)
        {
            at = SparseFile.NextHole(block.File, data) is >= 0 and var hole ? Math.Min(hole, part.End) : part.End;
            var range = new PageRange(block.FirstPage + (data >> PageIndex.PageShift), (at - data) >> PageIndex.PageShift);
            pages += range.Count;
            dirty?.Fill(range, true);
        }

        return pages;
    }

    private long Harvest(RamBlock block, Part part, PageBitmap? dirty)
    {
        long pages = 0;
        var position = block.MappedAt + (ulong)part.Start;
        var limit = block.MappedAt + (ulong)part.End;
        while (position.Value < limit.Value)
        {
            int count = _scan.HarvestWritten(ref position, limit, _regions);
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

        return pages;
    }

    /// <summary>Offsets within a block.</summary>
    private readonly record struct Part(long Start, long End, bool Armed);
}
