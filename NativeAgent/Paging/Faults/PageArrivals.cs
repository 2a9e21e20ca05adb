using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Paging;

/// <summary>What becomes of a page that a sub-host has sent: on the thread that reads the answers, which owns the page in Fetching.</summary>
internal sealed unsafe class PageArrivals(PagingCore core) : IPageArrivals
{
    public void Arrived(int sub, long page, bool forWrite, byte* content)
    {
        var fetching = core.Table[page];
        if (!IsFetching(fetching, sub))
        {
            // Nobody waits for it any more.
            return;
        }

        FailurePoint.Reach("main.fault.answered");
        bool writable = core.WriteWanted.TryClear(page) || forWrite;
        if (TryPut(page, fetching, writable, content))
        {
            FailurePoint.Reach("main.fault.copied");
            core.Heat.CameBack(page);
            ComeIn(page, sub, fetching, writable);
        }

        core.WakeFaults();
    }

    public void ArrivedEarly(int sub, PageRange range, bool forWrite, byte* content)
    {
        for (long page = range.First; page < range.End;)
        {
            var fetching = core.Table[page];
            if (!IsFetching(fetching, sub))
            {
                page++;
                continue;
            }

            // As many as can go in at once.
            long end = Math.Min(range.End, core.Pages.Ram.BlockOf(page).EndPage);
            long next = page + 1;
            while (next < end && core.Table[next] == fetching)
            {
                next++;
            }

            int errno = core.Pages.Copy(
                new(page, next - page), content + ((page - range.First) << PageIndex.PageShift), protect: !forWrite, out long copied);
            FailurePoint.Reach("main.prefetch.copied");
            for (long done = page; done < page + copied; done++)
            {
                ComeIn(done, sub, fetching, forWrite);
            }

            WakeAgain(new(page, copied));

            page += copied;
            if (errno != 0 && page < next)
            {
                // One would not go in: alone it is told what is wrong with it, and the others are tried again.
                if (TryPut(page, fetching, forWrite, content + ((page - range.First) << PageIndex.PageShift)))
                {
                    ComeIn(page, sub, fetching, forWrite);
                    WakeAgain(new(page, 1));
                }

                page++;
            }
        }

        core.WakeFaults();
    }

    public void Missing(int sub, long page)
    {
        var fetching = core.Table[page];
        if (!IsFetching(fetching, sub))
        {
            return;
        }

        int other = core.Table.Places.Other(fetching.Sub, sub);
        if (other >= 0 && core.FateOf(other) != StoreFate.Gone)
        {
            // It may be the last copy from here on.
            core.Copies.ForgetSpare(other);
            core.Report($"Sub-host {core.Stores[sub].Options.Host} no longer has page {page}; {core.Stores[other].Options.Host} is asked for it.");
            core.Table.TryMove(page, fetching, new(PageState.Remote, other));
            core.Pages.Wake(new(page, 1));
            core.WakeFaults();
            return;
        }

        if (!core.Table.TryMove(page, fetching, fetching.With(PageState.Lost)))
        {
            return;
        }

        core.Report(
            $"Sub-host {core.Stores[sub].Options.Host} no longer has page {page}: its content is lost, and the guest gets a memory error where it touches it.");
        Lose(page);
        core.WakeFaults();
    }

    public bool IsElsewhere(int sub, long page) =>
        core.Table[page] is { State: PageState.Fetching } fetching && core.Copies.IsElsewhere(sub, fetching.Sub);

    public void Unanswered(int sub, PageRange range)
    {
        for (long page = range.First; page < range.End; page++)
        {
            var fetching = core.Table[page];
            if (IsFetching(fetching, sub))
            {
                // It can be lost in between, with all that have it.
                core.Table.TryMove(page, fetching, fetching.With(PageState.Remote));
            }

            // Who waits for it faults again, and the other is asked.
            core.Pages.Wake(new(page, 1));
        }

        core.WakeFaults();
    }

    /// <summary>Not by the fault thread: who was woken by the copy may have missed a page since (QEMU discards what a balloon takes), and found it Fetching.</summary>
    private void WakeAgain(PageRange pages)
    {
        if (pages.Count > 0)
        {
            core.Pages.Wake(pages);
        }
    }

    /// <summary>It is Lost in the table.</summary>
    private void Lose(long page)
    {
        if (!core.TryTellLost(new(page, 1)))
        {
            // Who waits for it faults again, which is answered when it could be noted.
            core.Pages.Wake(new(page, 1));
        }
    }

    private bool IsFetching(PageEntry entry, int sub) => entry.State == PageState.Fetching && core.Table.Places.Contains(entry.Sub, sub);

    /// <summary>Copies the page into the VM's memory. False: it could not be, and the page is what it should be instead.</summary>
    private bool TryPut(long page, PageEntry fetching, bool writable, byte* content)
    {
        int errno = core.Pages.Copy(page, content, protect: !writable);
        if (errno == 0)
        {
            return true;
        }

        if (errno == Errno.EEXIST)
        {
            // Something of it is here although the table said no. Take what is here for newer, and let nobody wait.
            core.Table.Move(page, fetching, fetching.With(PageState.Resident));
            core.Pages.Wake(new(page, 1));
            Interlocked.Increment(ref core.Counters.Errors);
            core.Waits.Answered(page);
            core.PageCame(page);
            return false;
        }

        core.Table.Move(page, fetching, fetching.With(PageState.Remote));
        if (!core.Pages.Ended)
        {
            core.Report("A page that a sub-host had sent could not be put into the VM's memory. Free some memory on this host.");
            // The guest faults again at once; without a pause that would be a storm.
            Thread.Sleep(10);
            core.Pages.Wake(new(page, 1));
        }

        return false;
    }

    /// <summary>The page has been copied in.</summary>
    private void ComeIn(long page, int sub, PageEntry fetching, bool writable)
    {
        Interlocked.Increment(ref core.Counters.PageIns[sub]);
        if (core.SeenFree[page])
        {
            Interlocked.Increment(ref core.Counters.PageInsOfFree);
        }

        if (writable)
        {
            core.Table.Move(page, fetching, fetching.With(PageState.Resident));
        }
        else
        {
            var clean = fetching.With(PageState.ResidentClean);
            core.Table.Move(page, fetching, clean);
        }

        core.Waits.Answered(page);
        // After the move: a write that came before it has left this note, one that comes after it finds the page here.
        if (core.WriteWanted.TryClear(page) && !writable)
        {
            core.TryMakeWritable(page, fetching.With(PageState.ResidentClean));
        }

        core.PageCame(page);
    }
}
