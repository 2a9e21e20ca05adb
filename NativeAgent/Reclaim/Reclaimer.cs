using System.Diagnostics;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Reclaim;

/// <summary>How much a reclaim takes, and how fast.</summary>
internal sealed record ReclaimLimits
{
    /// <summary>Bytes of guest memory given back in a second; 0: no limit.</summary>
    public long BytesPerSecond { get; init; }

    /// <summary>Of one processor; 1 to 100.</summary>
    public int ProcessorPercent { get; init; } = 100;

    /// <summary>Count only.</summary>
    public bool WhatIf { get; init; }
}

/// <summary>
/// Consistent reclaim: gives back the free memory of a guest that runs. Is fed by a scan (<see cref="FreePageScanner"/>), whose word is
/// a hint; each batch of blocks then goes through these steps:
/// <list type="number">
/// <item>freeze the pages of <c>struct page</c>s that head the blocks, and hold the blocks' own pages: writes to either wait;</item>
/// <item>ask QEMU whether the processors run the kernel that the structures are of;</item>
/// <item>read each head again: still mapped where it was, still a free block of that order?</item>
/// <item>thaw the heads, drop the blocks of which that is so, let the others go: where the target allows it, while the next batch's question
/// is under way.</item>
/// </list>
/// <para>
/// Why no page in use is lost. A kernel that takes a block writes its head before anyone writes the block (x86 keeps that order, and so does
/// TCG on x86). If the head was written before it was frozen, step 3 sees that. If not, that writer waits, and after it is thawed its
/// first write to the block waits again until the block's content is gone: dead content, since the block was free when that writer began.
/// What writes free pages without telling the buddy allocator (a kexec's last jump, firmware after a reset) does not run on this kernel's
/// page tables: if it ran before step 2, that sees it and nothing is dropped; if it begins later, its writes wait and come after the drop.
/// </para>
/// The check may fail for want of an answer: a processor that waits for a frozen page can't tell. Then nothing is dropped, and the
/// guest has waited some milliseconds. One thread; allocates nothing while it works.
/// </summary>
internal sealed class Reclaimer : IFreeBlockSink
{
    private readonly GuestRam _ram;
    private readonly IReclaimTarget _target;
    private readonly ProcessorCheck _check;
    private GuestKernel _kernel = null!;
    private GuestPageTables _tables = null!;
    private ReclaimLimits _limits = new();
    private PageBitmap? _freeBefore;
    private PageBitmap? _free;
    private CancellationToken _stop;

    /// <summary>Gathers blocks; frozen and held once it is full.</summary>
    private ReclaimBatch _batch;

    /// <summary>Looked at again, and still held: dropped piece by piece while the question for the next one is under way.</summary>
    private ReclaimBatch _checked;
    private long _began;
    private double _worked;
    private long _remoteBefore;
    private long _resumed;
    private ReclaimFigures _figures;

    /// <summary>
    /// Rests so many milliseconds, or less when the reclaim is stopped, in place of the thread that works: then nothing is frozen or
    /// held, and others may use the monitor and the target. Null: it just waits.
    /// </summary>
    public Action<int, CancellationToken>? Resting { get; set; }

    public Reclaimer(GuestRam ram, IReclaimTarget target, ProcessorCheck check)
    {
        _ram = ram;
        _target = target;
        _check = check;
        _batch = new(ram, target);
        _checked = new(ram, target);
    }

    /// <summary>Before a scan that is given this as its sink.</summary>
    /// <param name="kernel">As the scan uses it.</param>
    /// <param name="limits">How much and how fast.</param>
    /// <param name="freeBefore">Only blocks all of whose pages are in it are taken, memory that the guest does not want back at once, and blocks of which another host
    /// has a part: a guest that wants those back has a page of zeros sooner than a page from there. Null: all.</param>
    /// <param name="stop">Ends it after the batch under way.</param>
    /// <param name="free">What the scan has found free: blocks that are no longer so at the look under the freeze are taken out of it.</param>
    public void Begin(GuestKernel kernel, ReclaimLimits limits, PageBitmap? freeBefore, CancellationToken stop, PageBitmap? free = null)
    {
        if (_kernel != kernel)
        {
            _kernel = kernel;
            // Of its own: the scan keeps tables in the kernel's, and these are forgotten at each batch.
            _tables = new(kernel.Memory, kernel.PageTables.Root, kernel.PageTables.Levels);
        }

        _limits = limits;
        _freeBefore = freeBefore;
        _free = free;
        _stop = stop;
        _figures = default;
        _remoteBefore = _target.RemoteDropped;
        _worked = 0;
        _began = _resumed = Stopwatch.GetTimestamp();
    }

    /// <summary>After the scan.</summary>
    public ReclaimFigures Finish()
    {
        Flush();
        DropRest(_checked);
        return _figures with
        {
            FreedRemotePages = _target.RemoteDropped - _remoteBefore,
            Milliseconds = _worked + Stopwatch.GetElapsedTime(_resumed).TotalMilliseconds,
        };
    }

    public void Found(ulong frame, long page, int order)
    {
        var block = new PageRange(page, 1L << order);
        if (_stop.IsCancellationRequested || (_freeBefore is not null && !_freeBefore.Covers(block) && !_target.IsElsewhere(block)))
        {
            return;
        }

        long count = _target.Count(block);
        if (count == 0)
        {
            return;
        }

        _figures.FoundPages += count;
        if (_limits.WhatIf || _ram.BlockOf(page).EndPage < block.End || !TryHead(frame, out ulong address, out ulong physical, out long head))
        {
            return;
        }

        if (!_batch.HasRoomFor(block, head))
        {
            Flush();
        }

        _batch.Add(new(block, order, address, physical, head));
    }

    /// <summary>Where the structure of a frame lies; false when it is not in one page.</summary>
    private bool TryHead(ulong frame, out ulong address, out ulong physical, out long page)
    {
        ulong size = (ulong)_kernel.Pages.Size;
        address = physical = 0;
        page = -1;
        if (!_kernel.Sections.TryGet(frame >> _kernel.Sections.PageCountShift, out ulong memMap))
        {
            return false;
        }

        address = memMap + (frame * size);
        if ((address & (PageIndex.PageSize - 1)) + size > PageIndex.PageSize || !_tables.TryTranslate(new(address), out var at))
        {
            return false;
        }

        physical = at.Value;
        return _ram.TryPageOf(at, out page);
    }

    private void Flush()
    {
        if (_batch.Blocks.IsEmpty)
        {
            return;
        }

        _figures.Batches++;
        FailurePoint.Reach("reclaim.chosen");
        _batch.Freeze();
        FailurePoint.Reach("reclaim.frozen");
        bool certain = Ask();
        if (!certain)
        {
            _figures.Uncertain++;
        }

        FailurePoint.Reach("reclaim.asked");
        _tables.Forget();
        foreach (ref var block in _batch.Blocks)
        {
            block.Drop = block.Held && certain && IsStillFree(block);
            if (block.Held && !block.Drop)
            {
                _figures.TakenBack++;
                if (certain)
                {
                    // The guest has it in use by now: what it brings back of it is no dead content to be wondered at.
                    _free?.Fill(block.Pages, false);
                }
            }
        }

        FailurePoint.Reach("reclaim.checked");
        _batch.Thaw();
        FailurePoint.Reach("reclaim.thawed");
        DropRest(_checked);
        (_batch, _checked) = (_checked, _batch);
        if (!certain || !_target.DropsWhileAsking)
        {
            DropRest(_checked);
        }

        _check.Settle();
        Rest();
    }

    private bool Ask()
    {
        _check.Begin(_kernel);
        while (!_check.IsAnswered && _checked.DropPiece(ref _figures.FreedPages))
        {
        }

        return _check.End();
    }

    private void DropRest(ReclaimBatch batch)
    {
        if (batch.Blocks.IsEmpty)
        {
            return;
        }

        while (batch.DropPiece(ref _figures.FreedPages))
        {
        }

        batch.Clear();
        FailurePoint.Reach("reclaim.dropped");
    }

    private bool IsStillFree(in ReclaimBatch.Block block)
        => _tables.TryTranslate(new(block.Address), out var at) && at.Value == block.Physical
            && _kernel.Memory.TryRead(new GuestPhysicalAddress(block.Physical + (ulong)_kernel.Pages.MapcountOffset), out uint type)
            && type == _kernel.Pages.BuddyValue
            && _kernel.Memory.TryRead(new GuestPhysicalAddress(block.Physical + (ulong)_kernel.Pages.PrivateOffset), out ulong order)
            && order == (ulong)block.Order;

    /// <summary>As long as the limits ask for.</summary>
    private void Rest()
    {
        _worked += Stopwatch.GetElapsedTime(_resumed).TotalMilliseconds;
        double wall = Stopwatch.GetElapsedTime(_began).TotalMilliseconds;
        double due = _worked * 100 / _limits.ProcessorPercent;
        if (_limits.BytesPerSecond > 0)
        {
            due = Math.Max(due, _figures.FreedPages * (double)PageIndex.PageSize * 1000 / _limits.BytesPerSecond);
        }

        if (due - wall >= 1)
        {
            DropRest(_checked);
            int milliseconds = (int)Math.Min(due - wall, 10_000);
            if (Resting is { } rest)
            {
                rest(milliseconds, _stop);
            }
            else
            {
                _stop.WaitHandle.WaitOne(milliseconds);
            }
        }

        _resumed = Stopwatch.GetTimestamp();
    }
}

/// <summary>What a reclaim came to.</summary>
internal record struct ReclaimFigures
{
    /// <summary>Free pages that took memory.</summary>
    public long FoundPages;

    /// <summary>Those whose memory was given back.</summary>
    public long FreedPages;

    /// <summary>Those of <see cref="FreedPages"/> that only a sub-host had.</summary>
    public long FreedRemotePages;

    /// <summary>Blocks that were no longer free when they were looked at for the last time, or of which that was not certain.</summary>
    public long TakenBack;

    /// <summary>Batches of which it was not certain, in time, that the guest ran its kernel.</summary>
    public long Uncertain;

    public long Batches;

    /// <summary>Time worked, rests not counted.</summary>
    public double Milliseconds;
}
