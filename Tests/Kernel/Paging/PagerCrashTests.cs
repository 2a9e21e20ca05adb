using FCtrans.Agent.Paging;
using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>Races parked at a named step, and crashes at each step, with the pager in a process of its own.</summary>
public sealed class PagerCrashTests
{
    [Theory]
    [InlineData("main.evict.protected")]
    [InlineData("main.evict.read")]
    [InlineData("main.evict.acked")]
    [InlineData("main.evict.dropping")]
    [InlineData("main.evict.dropped")]
    [InlineData("main.evict.clean")]
    [InlineData("main.fault.read")]
    [InlineData("main.fault.fetching")]
    [InlineData("main.fault.answered")]
    [InlineData("main.fault.copied")]
    public void A_pager_killed_at_this_step_is_followed_by_one_that_goes_on(string point)
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000);
        using (var first = lab.StartPagerProcess(resume: false))
        {
            first.WaitUntilPaging();
            lab.Guest.Run();
            // Enough paging that every step, clean drops too, is reached at once by the next one.
            PagingLab.WaitFor(() => first.Figures() is var f && f[0] > 3_000 && f[3] > 100, "paging");
            first.Kill();
        }

        using (var second = lab.StartPagerProcess(resume: true, point + "=kill"))
        {
            second.WaitForExit();
            Assert.True(File.Exists(Path.Combine(lab.Directory, point + ".reached")), "it died where it should");
        }

        using var third = lab.StartPagerProcess(resume: true);
        third.WaitUntilPaging();
        long before = third.Figures()[0];
        PagingLab.WaitFor(() => third.Figures()[0] > before + 2_000, "it goes on");
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
        Assert.Equal(0, third.Figures()[4]);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(2)]
    public void A_pager_killed_again_and_again_at_any_moment_never_costs_a_byte(int userfaultfds)
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, tls: false, userfaultfds: userfaultfds);
        var random = new Random(11);
        for (int life = 0; life < 6; life++)
        {
            using var pager = lab.StartPagerProcess(resume: life > 0);
            pager.WaitUntilPaging();
            if (life == 0)
            {
                lab.Guest.Run();
            }

            int pageIns = random.Next(200, 3_000);
            PagingLab.WaitFor(() => pager.Figures()[0] > pageIns, "paging");
            pager.Kill();
        }

        using var last = lab.StartPagerProcess(resume: true);
        last.WaitUntilPaging();
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
    }

    /// <summary>The evictor stands still in the middle of a batch; the guest writes to a page of it.</summary>
    [Theory]
    [InlineData("main.evict.protected")]
    [InlineData("main.evict.read")]
    [InlineData("main.evict.acked")]
    public void A_page_written_while_it_is_evicted_is_taken_back_at_once_and_keeps_the_write(string point)
    {
        using var lab = new PagingLab(pages: 4_000, used: 1_000, limit: 1_000, stores: 1);
        using var pager = lab.StartPagerProcess(resume: false, point + "=park");
        pager.WaitUntilPaging();
        // Pages 0 and up are the oldest: they are what the first batch takes.
        for (int page = 0; page < 970; page++)
        {
            lab.Guest.Ask($"write {page}", "wrote");
        }

        lab.Guest.Ask("touch 1000 1020", "touched");
        PagingLab.WaitFor(() => File.Exists(Path.Combine(lab.Directory, point + ".reached")), "the evictor is there");
        Assert.Equal([3L], lab.Guest.Ask("write 3", "wrote"));
        Assert.Equal([3L, 0, 0], lab.Guest.Ask("read 3", "read"));
        long[] figures = pager.Figures();
        Assert.Equal(0, figures[0]);
        Assert.Equal(1, figures[2]);
        File.WriteAllText(Path.Combine(lab.Directory, point + ".go"), "");
        PagingLab.WaitFor(() => pager.Figures()[1] > 0, "the rest of the batch has left");
        for (int page = 0; page < 970; page++)
        {
            Assert.Equal([page, 0, 0], lab.Guest.Ask($"read {page}", "read"));
        }
    }

    [Fact]
    public void A_page_touched_while_it_is_dropped_comes_back_with_its_content()
    {
        using var lab = new PagingLab(pages: 4_000, used: 1_000, limit: 1_000, stores: 1);
        using var pager = lab.StartPagerProcess(resume: false, "main.evict.dropping=park");
        pager.WaitUntilPaging();
        for (int page = 0; page < 970; page++)
        {
            lab.Guest.Ask($"write {page}", "wrote");
        }

        lab.Guest.Ask("touch 1000 1020", "touched");
        PagingLab.WaitFor(() => File.Exists(Path.Combine(lab.Directory, "main.evict.dropping.reached")), "the evictor is there");
        // It has to wait: nobody may write to a page that is on its way out for good.
        lab.Guest.Say("write 3");
        File.WriteAllText(Path.Combine(lab.Directory, "main.evict.dropping.go"), "");
        Assert.Equal([3L], lab.Guest.Expect("wrote"));
        Assert.Equal([3L, 0, 0], lab.Guest.Ask("read 3", "read"));
        Assert.Equal(1, pager.Figures()[0]);
    }

    /// <summary>A write that comes while the page is under way for a read must not be lost to its protection.</summary>
    [Fact]
    public void A_write_to_a_page_that_a_read_has_asked_for_goes_through()
    {
        using var lab = new PagingLab(pages: 4_000, used: 2_000, limit: 300, stores: 1, threads: 2);
        lab.StartPager();
        lab.Guest.Run();
        PagingLab.WaitFor(() => lab.Pager.Snapshot() is { PageIns: > 10_000, WriteProtectFaults: > 1_000 }, "both kinds of fault");
        Assert.Equal((2_000, 0, 0), lab.Guest.StopAndVerify());
        Assert.Equal("paging", lab.Pager.Snapshot().State);
        // What was asked for ahead of the guest may still be on its way.
        PagingLab.WaitFor(() => lab.Table.Count(PageState.Busy) + lab.Table.Count(PageState.Fetching) == 0, "no page is left on its way");
    }
}
