using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Gives the guest unused pages, as zeros: the one of a fault, and those that its walk comes to next, many with one call. A program that takes
/// fresh memory goes through it in order, and each fault costs far more than a page of zeros does. The guest goes on with the first of them, so
/// those beside it are filled by the same call; of those farther on, who waits for something else comes first.
/// <para>
/// A page is Busy from <see cref="TryBegin"/> or <see cref="Take"/> until <see cref="Fill"/>. The fault thread only; allocates nothing.
/// </para>
/// </summary>
internal sealed class UnusedFill(PagingCore core, Func<bool> someoneWaits)
{
    /// <summary>With one call.</summary>
    public const int PagesAtOnce = 16;

    private const int MaxPages = 64;

    private static readonly PageEntry s_unused = new(PageState.Unused);
    private static readonly PageEntry s_busy = s_unused.With(PageState.Busy);

    private long _first;
    private int _count;
    private int _taken;
    private long _demanded;
    private long _startedAt;

    /// <summary>No more until the next <see cref="Fill"/>.</summary>
    public bool IsFull => _taken >= MaxPages || (_taken > 0 && _count == 0 && someoneWaits());

    /// <summary>The page of a fault is to be filled. False: it is no longer unused.</summary>
    public bool TryBegin(long page, long startedAt)
    {
        (_demanded, _startedAt) = (page, startedAt);
        Take(page);
        return _taken > 0;
    }

    /// <summary>The page was unused: it is to be filled, with those beside it.</summary>
    public void Take(long page)
    {
        bool beside = (page == _first + _count || page == _first - 1) && core.Pages.Ram.BlockOf(page) == core.Pages.Ram.BlockOf(_first);
        if (_count > 0 && !beside)
        {
            FillRun();
        }

        if (core.Table.TryMove(page, s_unused, s_busy))
        {
            _first = _count == 0 ? page : Math.Min(_first, page);
            _taken++;
            if (++_count == PagesAtOnce)
            {
                FillRun();
            }
        }
    }

    /// <summary>Fills those that were taken.</summary>
    public void Fill()
    {
        FillRun();
        _taken = 0;
        _demanded = -1;
    }

    private void FillRun()
    {
        long page = _first;
        long end = _first + _count;
        _count = 0;
        while (page < end)
        {
            int errno = core.Pages.Zero(new(page, end - page), out long zeroed);
            for (long filled = page + zeroed; page < filled; page++)
            {
                core.Table.Move(page, s_busy, s_busy.With(PageState.Resident));
                core.PageCame(page);
                core.Waits.Over(new(page, 1));
                if (page == _demanded)
                {
                    Interlocked.Increment(ref core.Counters.UnusedFaults);
                    core.UnusedLatency.RecordSince(_startedAt);
                }
                else
                {
                    Interlocked.Increment(ref core.Counters.UnusedAhead);
                }
            }

            if (errno != 0 && page < end)
            {
                NotFilled(page++, errno);
            }
        }
    }

    /// <summary>It is as it was, and whoever waits for it faults again, or QEMU or a migration has filled it meanwhile.</summary>
    private void NotFilled(long page, int errno)
    {
        if (errno != Errno.EEXIST && page == _demanded && !core.Pages.Ended)
        {
            core.Report("The VM could not be given an empty page. Free some memory on this host.");
            Thread.Sleep(10);
        }

        core.Table.Move(page, s_busy, s_busy.With(errno == Errno.EEXIST ? PageState.Resident : PageState.Unused));
        core.Pages.Wake(new(page, 1));
        if (errno == Errno.EEXIST)
        {
            core.PageCame(page);
        }
    }
}
