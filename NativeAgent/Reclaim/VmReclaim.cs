using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Reclaim;

/// <summary>Reclaim of one VM, turn by turn. One thread; owns nothing that it is given.</summary>
internal sealed class VmReclaim : IDisposable
{
    /// <summary>
    /// Each so many turns all free blocks are looked at, also where the turn only has to look at what changed: pages of a free block can come
    /// back to life without a change in their structures (a fetch that was under way).
    /// </summary>
    private const int FullTurns = 16;

    private readonly UnusedPages _pages;
    private readonly Reclaimer _reclaimer;
    private readonly HostReclaimTarget? _host;
    private readonly PageBitmap _unused;
    private readonly PageBitmap _freeBefore;
    private readonly PageBitmap? _owned;
    private bool _looked;
    private bool _leftSome = true;
    private int _turns;

    /// <param name="ram">The VM's RAM, with its segments.</param>
    /// <param name="pages">Its unused pages.</param>
    /// <param name="target">Where they are dropped.</param>
    /// <param name="check">Asks the monitor that <paramref name="pages"/> asks.</param>
    /// <param name="seenFree">
    /// Has, after each turn, the pages that the guest did not use then; none when that could not be told. For others to read. Null: nobody
    /// asks.
    /// </param>
    public VmReclaim(GuestRam ram, UnusedPages pages, IReclaimTarget target, ProcessorCheck check, PageBitmap? seenFree = null)
    {
        _pages = pages;
        _host = target as HostReclaimTarget;
        _reclaimer = new(ram, target, check);
        _unused = new(ram.PageCount);
        _owned = seenFree is null ? new(ram.PageCount) : null;
        _freeBefore = seenFree ?? _owned!;
    }

    /// <inheritdoc cref="Reclaimer.Resting"/>
    /// <remarks>What it throws ends the turn. Whoever looks at the VM's memory meanwhile does so by other means than <c>pages</c>: that look is not over.</remarks>
    public Action<int, CancellationToken>? Resting
    {
        get => _reclaimer.Resting;
        set => _reclaimer.Resting = value;
    }

    /// <summary>What the last turn saw.</summary>
    public UnusedFigures? Seen { get; private set; }

    /// <summary>Looks for free memory and gives it back.</summary>
    /// <param name="limits">How much and how fast.</param>
    /// <param name="settledOnly">Only memory that was free at the last turn too, so that what the guest frees and takes all the time is left alone.</param>
    /// <param name="stop">Ends it after the batch under way.</param>
    /// <exception cref="Interop.KernelException">The VM's memory can't be read.</exception>
    public ReclaimFigures Turn(ReclaimLimits limits, bool settledOnly, CancellationToken stop)
    {
        // What a kernel found just now says of its free pages is to be seen once before anything follows from it (page poisoning).
        for (int look = 0; look < 2; look++)
        {
            Seen = _pages.Refresh(_unused);
            if (Seen.Method != UnusedFigures.Buddy || Seen.FindMilliseconds == 0)
            {
                break;
            }
        }

        if (Seen!.Method != UnusedFigures.Buddy || _pages.Kernel is not { } kernel || Seen.FindMilliseconds != 0)
        {
            _looked = false;
            _freeBefore.Clear();
            return default;
        }

        ReclaimFigures figures = default;
        if (!settledOnly || _looked)
        {
            if (_host is not null)
            {
                _host.NeverTouched = _pages.NeverTouched;
                _host.NeverTouched!.LookAnewIfStale();
            }

            _reclaimer.Begin(kernel, limits, settledOnly ? _freeBefore : null, stop, _unused);
            bool changedOnly = !_leftSome && settledOnly && ++_turns % FullTurns != 0;
            // Should it end in the middle.
            _leftSome = true;
            _pages.VisitFree(_unused, _reclaimer, changedOnly);
            figures = _reclaimer.Finish();
            _leftSome = limits.WhatIf || !settledOnly || stop.IsCancellationRequested || figures.Uncertain + figures.TakenBack > 0
                || figures.FreedPages < figures.FoundPages;
        }

        _freeBefore.CopyFrom(_unused);
        _looked = true;
        return figures;
    }

    public void Dispose()
    {
        _unused.Dispose();
        _owned?.Dispose();
    }
}
