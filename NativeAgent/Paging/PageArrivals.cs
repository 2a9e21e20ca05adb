using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Interop;

namespace FCtrans.Agent.Paging;

/// <summary>What becomes of a page that a sub-host has sent: on the thread that reads the answers, which owns every page in Fetching.</summary>
internal sealed unsafe class PageArrivals(PagingCore core) : IPageArrivals
{
    public void Arrived(int sub, long page, bool forWrite, long startedAt, byte* content)
    {
        var fetching = new PageEntry(PageState.Fetching, sub);
        if (core.Table[page] != fetching)
        {
            // Nobody waits for it any more.
            return;
        }

        FailurePoint.Reach("main.fault.answered");
        bool writable = core.WriteWanted.TryClear(page) || forWrite;
        int errno = core.Pages.Copy(page, content, protect: !writable);
        if (errno == Errno.EEXIST)
        {
            // Something of it is here although the table said no. Take what is here for newer, and let nobody wait.
            core.Table.Move(page, fetching, fetching.With(PageState.Resident));
            core.Pages.Wake(new(page, 1));
            Interlocked.Increment(ref core.Counters.Errors);
            core.PageCame(page);
            return;
        }

        if (errno != 0)
        {
            core.Table.Move(page, fetching, fetching.With(PageState.Remote));
            if (!core.Pages.Ended)
            {
                core.Report("A page that a sub-host had sent could not be put into the VM's memory. Free some memory on this host.");
                // The guest faults again at once; without a pause that would be a storm.
                Thread.Sleep(10);
                core.Pages.Wake(new(page, 1));
            }

            return;
        }

        FailurePoint.Reach("main.fault.copied");
        core.RemoteLatency.RecordSince(startedAt);
        Interlocked.Increment(ref core.Counters.PageIns[sub]);
        core.Heat.CameBack(page);
        if (writable)
        {
            core.Table.Move(page, fetching, fetching.With(PageState.Resident));
        }
        else
        {
            var clean = fetching.With(PageState.ResidentClean);
            core.Table.Move(page, fetching, clean);
            if (core.WriteWanted.TryClear(page))
            {
                core.TryMakeWritable(page, clean);
            }
        }

        core.PageCame(page);
        core.WakeFaults();
    }

    public void Missing(int sub, long page)
    {
        var fetching = new PageEntry(PageState.Fetching, sub);
        if (!core.Table.TryMove(page, fetching, fetching.With(PageState.Lost)))
        {
            return;
        }

        core.Report(
            $"Sub-host {core.Stores[sub].Options.Host} no longer has page {page}: its content is lost, and the guest gets a memory error where it touches it.");
        core.Pages.Poison(page);
        core.Pages.Wake(new(page, 1));
        core.WakeFaults();
    }
}
