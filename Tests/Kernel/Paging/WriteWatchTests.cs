using System.Diagnostics;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>What the guest writes is known on its main host too, where pages come and go.</summary>
public sealed class WriteWatchTests
{
    [Fact]
    public void Each_look_has_what_was_written_since_the_one_before()
    {
        const long Pages = 600;
        using var lab = new PagingLab(Pages, used: Pages, limit: 2 * Pages);
        lab.StartPager();
        lab.Guest.Ask($"fill 0 {Pages - 1}", "filled");
        var watch = lab.Pager.OpenWriteWatch();
        PageRange[] watched = [new(10, 200), new(300, 1)];
        long[] all = [.. Enumerable.Range(10, 200).Select(p => (long)p), 300];
        Assert.Equal(all, Written(watch, watched));
        Assert.Empty(Written(watch, watched));

        lab.Guest.Ask("write 17", "wrote");
        lab.Guest.Ask("write 209", "wrote");
        lab.Guest.Ask("read 18", "read");
        lab.Guest.Ask("write 5", "wrote");
        Assert.Equal([17, 209], Written(watch, watched));

        // It rests: it counts as written until it is protected again, and the guest does not wait for it.
        long before = lab.Pager.Snapshot().WriteProtectFaults;
        lab.Guest.Ask("write 17", "wrote");
        Assert.Equal(before, lab.Pager.Snapshot().WriteProtectFaults);
        int looks = 0;
        while (Written(watch, watched).Length > 0)
        {
            Assert.True(++looks <= WriteWatch.RestingLooks);
        }

        lab.Guest.Ask("write 17", "wrote");
        Assert.Equal([17], Written(watch, watched));

        // What nobody watches any more counts as written, as all else does.
        watch.Forget(watched);
        Assert.True(watch.Look([])[100]);
    }

    [Fact]
    public void Nothing_is_missed_while_pages_leave_and_come_back()
    {
        const long Pages = 2_000;
        using var lab = new PagingLab(Pages, used: Pages, limit: 900, threads: 2);
        lab.StartPager();
        lab.Guest.Ask($"fill 0 {Pages - 1}", "filled");
        var watch = lab.Pager.OpenWriteWatch();
        PageRange[] watched = [new(3, Pages - 10)];
        lab.Guest.Run();

        // A copy that takes what a look tells, after it, is complete once the writers stand still.
        var copy = new byte[Pages * PageIndex.PageSize];
        var clock = Stopwatch.StartNew();
        long quiet = 0;
        for (int look = 0; look < 200 || quiet == 0 || lab.Pager.Snapshot().PageIns < 5_000; look++)
        {
            Assert.True(clock.Elapsed < TimeSpan.FromMinutes(2));
            long[] written = Written(watch, watched);
            quiet += watched[0].Count - written.Length;
            Copy(lab, written, copy);
        }

        lab.Guest.Ask("stop", "stopped");
        PagingLab.WaitFor(
            () => lab.Table.Count(PageState.Evicting) + lab.Table.Count(PageState.Busy) + lab.Table.Count(PageState.Fetching) == 0 && lab.Table.LocalPages < 900,
            "the pager rests");
        Copy(lab, Written(watch, watched), copy);
        var final = new byte[copy.Length];
        Copy(lab, [.. Enumerable.Range(3, (int)watched[0].Count).Select(p => (long)p)], final);
        int differs = final.AsSpan().CommonPrefixLength(copy);
        Assert.True(differs == final.Length, $"Page {differs >> PageIndex.PageShift} changed, and no look told.");
        Assert.Equal((Pages, 0, 0), lab.Guest.StopAndVerify());
    }

    private static unsafe void Copy(PagingLab lab, long[] pages, byte[] into)
    {
        using var file = SparseFile.Open(lab.Guest.RamPath, write: false);
        foreach (long page in pages)
        {
            fixed (byte* buffer = &into[page << PageIndex.PageShift])
            {
                Assert.Equal(PageIndex.PageSize, SparseFile.Read(file, buffer, PageIndex.PageSize, page << PageIndex.PageShift));
            }
        }
    }

    private static long[] Written(WriteWatch watch, PageRange[] watched)
    {
        var written = watch.Look(watched);
        var found = new List<long>();
        foreach (var range in watched)
        {
            for (long page = range.First; page < range.End; page++)
            {
                if (written[page])
                {
                    found.Add(page);
                }
            }
        }

        return [.. found];
    }
}
