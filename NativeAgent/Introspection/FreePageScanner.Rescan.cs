using System.Diagnostics;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Introspection;

/// <summary>What looking again at a part of the guest came to.</summary>
/// <param name="Groups">How many groups of frames were looked at.</param>
/// <param name="AddedPages">By how much the number of free pages grew; negative when it shrank.</param>
/// <param name="Milliseconds">Time taken.</param>
internal readonly record struct RescanResult(long Groups, long AddedPages, double Milliseconds);

/// <content>
/// Looking again where something changed. A free block can't reach over a boundary that is aligned to the largest block, so
/// the frames between two such boundaries, a group, can be looked at alone; and what is free in it changes only when one of
/// its <c>struct page</c>s is written. So given the pages written since the last look, only the groups whose structures lie in
/// those need another: the cost follows what changed, plus a step for each section (128 MiB) of the guest.
/// </content>
internal sealed unsafe partial class FreePageScanner
{
    /// <summary>
    /// As <see cref="Scan"/>, at the cost of what the guest wrote since the call before.
    /// </summary>
    /// <param name="unused">Cleared, and gets every page that the guest does not use.</param>
    /// <param name="free">The free and ballooned pages alone, kept by the caller from call to call, with <see cref="Ballooned"/>.</param>
    /// <param name="written">All pages that the guest wrote since the call before; null when that is not known: everything is looked at.</param>
    /// <exception cref="KernelException">A RAM file can't be searched for holes.</exception>
    /// <param name="touched">Those of <paramref name="written"/> that hold <c>struct page</c>s, when they are known apart: the others need not be looked for among the holes.</param>
    public ScanResult ScanChanged(PageBitmap unused, PageBitmap free, PageBitmap? written, PageBitmap? touched = null)
    {
        ArgumentNullException.ThrowIfNull(Ballooned);
        long start = Stopwatch.GetTimestamp();
        _neverTouched?.Prepare();
        double prepared = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
        ScanResult result;
        if (written is null)
        {
            free.Clear();
            result = AddFree(free, _neverTouched?.Pages);
        }
        else
        {
            // A page of page structures may have been a hole until the guest wrote it.
            _neverTouched?.LookAgainAt(touched ?? written);
            var rescan = Rescan(free, written, _neverTouched?.Pages);
            result = new() { RefusedBlocks = _refused, BuddyMilliseconds = rescan.Milliseconds };
        }

        start = Stopwatch.GetTimestamp();
        unused.CopyFrom(free);
        var (neverTouched, all) = _neverTouched?.AddTo(unused) ?? (0, unused.Count());
        long ballooned = Ballooned.CountWithout(_neverTouched?.Pages);
        return result with
        {
            BallooningPages = ballooned,
            FreePages = Math.Max(0, all - neverTouched - ballooned),
            NeverTouchedPages = neverTouched,
            NeverTouchedMilliseconds = prepared + Stopwatch.GetElapsedTime(start).TotalMilliseconds,
        };
    }

    /// <summary>
    /// Brings <paramref name="free"/> up to date: clears and sets pages only in groups whose structures were written.
    /// </summary>
    /// <param name="free">Free and ballooned pages as of the last look (<see cref="AddFree"/> into an empty set, or this); nothing else in it.</param>
    /// <param name="written">The pages that the guest wrote since then: all of them, or free pages are wrong until the next full scan.</param>
    /// <param name="holes">Pages without data, which are never read; null: the RAM is read with <c>pread</c> only.</param>
    public RescanResult Rescan(PageBitmap free, PageBitmap written, PageBitmap? holes)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(free.PageCount, _ram.PageCount);
        ArgumentOutOfRangeException.ThrowIfNotEqual(written.PageCount, _ram.PageCount);
        long start = Stopwatch.GetTimestamp();
        Begin(free, holes);
        long groups = 0;
        long cleared = 0;
        int shift = _kernel.Sections.PageCountShift;
        foreach (ref readonly var segment in _ram.Segments)
        {
            EnterSegment(segment);
            for (ulong frame = _segmentFirstFrame; frame < _segmentEndFrame;)
            {
                ulong end = Math.Min(_segmentEndFrame, ((frame >> shift) + 1) << shift);
                if (_kernel.Sections.TryGet(frame >> shift, out ulong memMap))
                {
                    groups += RescanSection(memMap, frame, end, written, ref cleared);
                }
                else
                {
                    // It went away, or its description is on another host: nothing in it counts as free.
                    cleared += ClearFrames(frame, end);
                }

                frame = end;
            }
        }

        return new(groups, _free + _ballooned - cleared, Stopwatch.GetElapsedTime(start).TotalMilliseconds);
    }

    /// <summary>As <see cref="Visit"/>, of the blocks whose <c>struct page</c>s, or those around them, are in <paramref name="changed"/>.</summary>
    /// <param name="free">As of a look before: is brought up to date.</param>
    /// <param name="sink">Told on this thread.</param>
    /// <param name="changed">Pages of the guest.</param>
    public void VisitChanged(PageBitmap free, IFreeBlockSink sink, PageBitmap changed)
    {
        _neverTouched?.Prepare();
        _sink = sink;
        try
        {
            Rescan(free, changed, _neverTouched?.Pages);
        }
        finally
        {
            _sink = null;
        }
    }

    private long RescanSection(ulong memMap, ulong frame, ulong end, PageBitmap written, ref long cleared)
    {
        ulong size = (ulong)_kernel.Pages.Size;
        // At least 512, so that the structures of a group are whole pages, whatever their size.
        ulong group = Math.Max(512, 1UL << (_kernel.Pages.Orders - 1));
        long groups = 0;
        ulong first = frame;
        GuestMapping mapping = default;
        while (frame < end)
        {
            ulong address = memMap + (frame * size);
            if (!mapping.Covers(address) && !_kernel.PageTables.TryMap(new(address), out mapping))
            {
                ulong unmapped = Math.Min(((mapping.Bytes - (address - mapping.Virtual) - 1) / size) + 1, end - frame);
                cleared += ClearFrames(frame, frame + unmapped);
                frame += unmapped;
                mapping = default;
                continue;
            }

            // All structures from this one to the end of the mapping, one that reaches over it included.
            ulong inMapping = address - mapping.Virtual;
            ulong bytes = Math.Min(mapping.Bytes - inMapping, (end - frame) * size);
            ulong physical = mapping.Physical + inMapping;
            if (!_kernel.Memory.TryLocate(new(physical), out _, out _, out ulong contiguous) ||
                !_ram.TryPageOf(new(physical), out long page))
            {
                cleared += ClearFrames(frame, frame + 1);
                frame++;
                continue;
            }

            bytes = Math.Min(bytes, contiguous);
            long lastPage = page + (long)(((physical & (PageSize - 1)) + bytes - 1) >> PageIndex.PageShift);
            if (!written.NextRunIn(new(page, lastPage + 1 - page), out var changed))
            {
                frame += Math.Max(1, bytes / size);
                continue;
            }

            // The frame whose structure reaches into the changed page first, and the group around it.
            ulong skipped = (ulong)(changed.First - page) << PageIndex.PageShift;
            skipped -= Math.Min(skipped, physical & (PageSize - 1));
            ulong from = Math.Max(first, (frame + (skipped / size)) & ~(group - 1));
            ulong until = Math.Min(end, ((frame + (skipped / size)) & ~(group - 1)) + group);
            cleared += ClearFrames(from, until);
            ScanSection(memMap, from, until);
            groups++;
            frame = Math.Max(until, frame + 1);
        }

        return groups;
    }

    private long ClearFrames(ulong from, ulong until)
    {
        var range = new PageRange(PageOf(from), (long)(until - from));
        _ballooning?.Fill(range, false);
        return _unused.ClearCounting(range);
    }
}
