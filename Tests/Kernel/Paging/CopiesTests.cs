using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>Each remote page at two sub-hosts: what goes on when one dies, comes back with what is old, or is replaced.</summary>
public sealed class CopiesTests
{
    [Theory]
    [InlineData(Player.Process, 8_000, 3_000, 3_000)]
    [InlineData(Player.Kvm, 2_560, 768, 500)]
    public void A_sub_host_that_dies_costs_nothing_and_a_third_takes_its_place(Player player, long used, long limit, long some)
    {
        using var lab = new PagingLab(player, used, limit, copies: 2);
        lab.StartPager();
        lab.Oracle.Run();
        PagingLab.WaitFor(() => lab.Pager.Snapshot() is { ShortPages: 0 } f && f.PageIns > some, "all pages that are away are at both");
        lab.Stores[0].Vanish();
        long before = lab.Pager.Snapshot().PageIns;
        PagingLab.WaitFor(() => lab.Pager.Snapshot().PageIns > before + some, "paging goes on from the other");
        PagingLab.WaitFor(() => lab.Pager.Snapshot() is { State: "degraded", ShortPages: > 1_000, Error: not null }, "it is said that a copy is missing");
        lab.AddStore();
        using (var lost = lab.Pager.GiveUp(0))
        {
            Assert.Equal(0, lost.Count());
        }

        lab.Gone.Add(0);
        PagingLab.WaitFor(() => lab.Pager.Snapshot() is { State: "paging", ShortPages: 0, StaleCopies: 0, CopiesMade: > 0 }, "the third has what is missing");
        // Now the new one is the other.
        lab.Stores[1].Stop();
        before = lab.Pager.Snapshot().PageIns;
        PagingLab.WaitFor(() => lab.Pager.Snapshot().PageIns > before + some, "paging goes on from the third");
        Assert.Equal((used, 0, 0), lab.Oracle.StopAndVerify());
        Assert.Equal(0, lab.Pager.Snapshot().LostPages);
        lab.Stores[1].Start();
        lab.Stores[0].Start();
    }

    /// <summary>A store that was away has old copies of what was written meanwhile. Each time the other is away next, so that they would be asked for.</summary>
    [Fact]
    public void An_old_copy_is_never_served_whoever_was_away_and_however_often_the_pager_is_started_again()
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, tls: false, stores: 3, copies: 2);
        lab.StartPager();
        lab.Guest.Run();
        for (int turn = 0; turn < 6; turn++)
        {
            long before = lab.Pager.Snapshot().PageIns;
            PagingLab.WaitFor(() => lab.Pager.Snapshot() is { ShortPages: 0, StaleCopies: 0 } f && f.PageIns > before + 1_000, "paging, and no page is at one alone");
            var store = lab.Stores[turn % 3];
            store.Stop();
            before = lab.Pager.Snapshot().PageOuts;
            PagingLab.WaitFor(() => lab.Pager.Snapshot().PageOuts > before + 2_000, "pages leave without it");
            store.Start();
            if (turn % 2 == 1)
            {
                // At once: what it has of old is still there.
                lab.StopPager();
                lab.StartPager(resume: true);
            }

            PagingLab.WaitFor(() => lab.Pager.Snapshot() is { State: "paging", ShortPages: 0 }, "all is at two again");
        }

        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
        Assert.Equal((0L, 0L), (lab.Pager.Snapshot().LostPages, lab.Pager.Snapshot().Errors));
    }

    [Fact]
    public void A_pager_that_is_started_again_does_not_wait_for_a_sub_host_that_is_dead_when_all_it_has_is_elsewhere()
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, copies: 2);
        using (var first = lab.StartPagerProcess(resume: false))
        {
            first.WaitUntilPaging();
            lab.Guest.Run();
            PagingLab.WaitFor(() => first.Figures() is var f && f[0] > 3_000 && IsWhole(f), "all is at both");
            lab.Stores[0].Stop();
            long before = first.Figures()[1];
            PagingLab.WaitFor(() => first.Figures()[1] > before + 2_000, "pages leave without it");
            PagingLab.WaitFor(() => File.Exists(Path.Combine(lab.StateDirectory, "sub-0-spare")), "it is noted that nothing is there alone");
            first.Kill();
        }

        using var second = lab.StartPagerProcess(resume: true);
        second.WaitUntilPaging();
        PagingLab.WaitFor(() => second.Figures()[0] > 2_000, "it goes on");
        lab.Stores[0].Start();
        PagingLab.WaitFor(() => IsWhole(second), "the one that is back has all again");
        lab.Stores[1].Stop();
        long pageIns = second.Figures()[0];
        PagingLab.WaitFor(() => second.Figures()[0] > pageIns + 2_000, "it is asked");
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
        lab.Stores[1].Start();
    }

    [Theory]
    [InlineData("main.copies.noted")]
    [InlineData("main.copies.sent")]
    [InlineData("main.copies.discarded")]
    public void A_pager_killed_while_it_makes_copies_whole_is_followed_by_one_that_goes_on(string point)
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, copies: 2);
        using (var first = lab.StartPagerProcess(resume: false, point + "=kill"))
        {
            first.WaitUntilPaging();
            lab.Guest.Run();
            long outs = 0;
            PagingLab.WaitFor(() => first.HasEndedOr(f => (outs = f[1]) > 2_000 && IsWhole(f)), "pages are at both");
            lab.Stores[0].Stop();
            PagingLab.WaitFor(() => first.HasEndedOr(f => f[1] > outs + 2_000), "pages leave without it");
            lab.Stores[0].Start();
            first.WaitForExit();
        }

        using var second = lab.StartPagerProcess(resume: true);
        second.WaitUntilPaging();
        PagingLab.WaitFor(() => second.Figures()[0] > 1_000 && IsWhole(second), "all is at both again");
        lab.Stores[1].Stop();
        long before = second.Figures()[0];
        PagingLab.WaitFor(() => second.Figures()[0] > before + 1_000, "the one that was away is asked");
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
        lab.Stores[1].Start();
    }

    /// <summary>A page is asked for, taken and written to while a copy of it is on its way to the third.</summary>
    [Fact]
    public void A_page_written_while_it_is_copied_keeps_the_write_and_what_was_copied_counts_for_nothing()
    {
        using var lab = new PagingLab(pages: 4_000, used: 1_000, limit: 500, stores: 2, copies: 1);
        using (var first = lab.StartPagerProcess(resume: false))
        {
            first.WaitUntilPaging();
            for (int page = 0; page < 1_000; page++)
            {
                lab.Guest.Ask($"write {page}", "wrote");
            }

            PagingLab.WaitFor(() => first.Figures()[1] > 400, "pages have left");
            first.Kill();
        }

        lab.Copies = 2;
        const string Point = "main.copies.sent";
        using (var second = lab.StartPagerProcess(resume: true, Point + "=park"))
        {
            second.WaitUntilPaging();
            PagingLab.WaitFor(() => File.Exists(Path.Combine(lab.Directory, Point + ".reached")), "a copy is at the other and not counted yet");
            // The first pages left first, and are copied first. No more than there is room for: the evictor waits.
            for (int page = 0; page < 8; page++)
            {
                lab.Guest.Ask($"write {page}", "wrote");
            }

            second.Kill();
        }

        using var third = lab.StartPagerProcess(resume: true);
        third.WaitUntilPaging();
        PagingLab.WaitFor(() => IsWhole(third), "all is at both");
        lab.Stores[0].Stop();
        for (int page = 0; page < 1_000; page++)
        {
            Assert.Equal([page, 0, 0], lab.Guest.Ask($"read {page}", "read"));
        }

        lab.Stores[0].Start();
        PagingLab.WaitFor(() => IsWhole(third), "all is at both again");
        lab.Stores[1].Stop();
        for (int page = 0; page < 1_000; page++)
        {
            Assert.Equal([page, 0, 0], lab.Guest.Ask($"read {page}", "read"));
        }

        lab.Stores[1].Start();
    }

    [Fact]
    public void A_sub_host_leaves_and_another_joins_under_load()
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, copies: 2);
        lab.StartPager();
        lab.Guest.Run();
        PagingLab.WaitFor(() => lab.Pager.Snapshot() is { PageIns: > 1_000, ShortPages: 0 }, "all is at both");
        lab.AddStore();
        lab.Pager.Evacuate(0);
        PagingLab.WaitFor(() => lab.Pager.CopiesAt(0) == 0 && lab.Pager.Snapshot() is { ShortPages: 0, StaleCopies: 0 }, "it has nothing any more, and all is at two");
        lab.Pager.Forget(0);
        lab.Remote[0].Dispose();
        lab.Stores[0].Vanish();
        lab.Stores[1].Stop();
        long before = lab.Pager.Snapshot().PageIns;
        PagingLab.WaitFor(() => lab.Pager.Snapshot().PageIns > before + 1_000, "the new one has all");
        lab.Stores[1].Start();
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
        Assert.Equal(0, lab.Pager.Snapshot().LostPages);
        lab.Stores[0].Start();
    }

    /// <summary>The guest frees memory while one of two is dead: nobody waits, and what the dead one has does not come back.</summary>
    [Fact]
    public void Memory_given_back_while_a_sub_host_is_dead_stays_zeros_when_it_is_back()
    {
        using var lab = new PagingLab(pages: 4_000, used: 1_000, limit: 500, copies: 2);
        lab.StartPager();
        for (int page = 0; page < 1_000; page++)
        {
            lab.Guest.Ask($"write {page}", "wrote");
        }

        PagingLab.WaitFor(() => lab.Pager.Snapshot() is { ShortPages: 0 } f && f.PageOuts + f.CopiesMade > 800, "pages are at both");
        lab.Stores[0].Stop();
        PagingLab.WaitFor(() => lab.Pager.Snapshot().State == "degraded", "one is away");
        var freed = new PageRange(0, 300);
        using (var target = lab.Pager.OpenReclaimTarget())
        {
            Assert.True(target.Hold(freed));
            Assert.Equal(300, target.Drop(freed));
        }

        Assert.All(Enumerable.Range(0, 300), page => Assert.Equal(PageState.Unused, lab.Table[page].State));
        // A worker that finds the old copies at the one that is back.
        lab.StopPager();
        lab.Stores[0].Start();
        lab.StartPager(resume: true);
        Assert.All(Enumerable.Range(0, 300), page => Assert.Equal(PageState.Unused, lab.Table[page].State));
        for (int page = 300; page < 1_000; page++)
        {
            Assert.Equal([page, 0, 0], lab.Guest.Ask($"read {page}", "read"));
        }
    }

    /// <summary>
    /// Nothing is short, and nothing will be by and by: a page that leaves while a sub-host still has an old copy of it leaves to the other alone.
    /// </summary>
    private static bool IsWhole(PagerProcess pager) => IsWhole(pager.Figures());

    private static bool IsWhole(long[] figures) => figures[5] == 0 && figures[6] == 0;
}
