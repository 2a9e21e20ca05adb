using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>Pages of a split VM that reclaim holds, while the guest wants them: each order of events, one after the other.</summary>
public sealed class ReclaimTargetTests
{
    private const long Used = 3_000;

    [Fact]
    public void What_is_dropped_is_gone_on_every_host_and_what_the_guest_writes_meanwhile_comes_after_it()
    {
        using var lab = Paged();
        using var target = lab.Pager.OpenReclaimTarget();
        var all = new PageRange(0, Used);
        long taken = target.Count(all);
        Assert.True(target.Hold(all));

        // Page 7 is held, here or remote: this write waits.
        lab.Guest.Say("write 7");
        PagingLab.WaitFor(() => lab.Table[7].State == PageState.Busy, "page 7 is held");
        Assert.Equal(taken, target.Drop(all));
        Assert.Equal([7], lab.Guest.Expect("wrote"));
        Assert.Equal([7, 0, 0], lab.Guest.Ask("read 7", "read"));
        var figures = lab.Pager.Snapshot();
        Assert.Equal(0, figures.RemotePages.Sum());
        Assert.Equal(0, figures.LostPages);
        Assert.Equal(0, lab.Stores.Sum(s => s.Pages.StoredPages));

        // Dead content reads as zeros, not as an error; the guest may use the page as any fresh one.
        long[] dead = lab.Guest.Ask("read 8", "read");
        Assert.Equal(0, dead[2]);
        lab.Guest.Ask("write 8", "wrote");
        Assert.Equal(dead, lab.Guest.Ask("read 8", "read"));
    }

    [Fact]
    public void What_is_let_go_is_as_it_was()
    {
        using var lab = Paged();
        using var target = lab.Pager.OpenReclaimTarget();
        var all = new PageRange(0, Used);
        Assert.True(target.Hold(all));
        lab.Guest.Say("write 7");
        target.LetGo(all);
        Assert.Equal([7], lab.Guest.Expect("wrote"));
        lab.Guest.Run();
        long before = lab.Pager.Snapshot().PageIns;
        PagingLab.WaitFor(() => lab.Pager.Snapshot().PageIns > before + 2_000, "paging goes on");
        Assert.Equal((Used, 0, 0), lab.Guest.StopAndVerify());
    }

    [Fact]
    public void What_is_held_at_sub_hosts_takes_no_room_here()
    {
        using var lab = Paged();
        using var target = lab.Pager.OpenReclaimTarget();
        long[] remote = [.. Enumerable.Range(0, (int)Used).Where(p => lab.Table[p].State == PageState.Remote).Select(p => (long)p)];
        Assert.InRange(remote.Length + lab.Table.LocalPages, lab.Pager.Snapshot().LimitPages + 2, Used);
        foreach (long page in remote[1..])
        {
            Assert.True(target.Hold(new(page, 1)));
        }

        // There is room for it, although more pages than may be here are held.
        Assert.Equal([remote[0], 0, 0], lab.Guest.Ask($"read {remote[0]}", "read"));
        foreach (long page in remote[1..])
        {
            target.LetGo(new(page, 1));
        }

        Assert.Equal((Used, 0, 0), lab.Guest.StopAndVerify());
    }

    [Fact]
    public void A_frozen_page_waits_and_loses_nothing()
    {
        using var lab = Paged();
        using var target = lab.Pager.OpenReclaimTarget();
        long page = Enumerable.Range(0, (int)Used).First(p => lab.Table[p].State is PageState.Resident or PageState.ResidentClean);
        Assert.True(target.Freeze(page));
        Assert.False(target.Freeze(page));
        lab.Guest.Say($"write {page}");
        target.Thaw(page);
        Assert.Equal([page], lab.Guest.Expect("wrote"));
        Assert.Equal([page, 0, 0], lab.Guest.Ask($"read {page}", "read"));
    }

    [Fact]
    public void A_sub_host_that_is_away_keeps_its_pages_waiting_until_it_has_forgotten_them()
    {
        using var lab = Paged();
        using var target = lab.Pager.OpenReclaimTarget();
        var all = new PageRange(0, Used);
        lab.Stores[0].Stop();
        PagingLab.WaitFor(() => !lab.Remote[0].IsConnected, "the sub-host is away");
        long remote = Enumerable.Range(0, (int)Used).First(p => lab.Table[p] == new PageEntry(PageState.Remote, 0));
        Assert.True(target.Hold(all));
        var drop = new Thread(() => target.Drop(all));
        drop.Start();
        lab.Guest.Say($"write {remote}");
        lab.Stores[0].Start();
        Assert.True(drop.Join(TimeSpan.FromSeconds(60)));
        Assert.Equal([remote], lab.Guest.Expect("wrote"));
        Assert.Equal([remote, 0, 0], lab.Guest.Ask($"read {remote}", "read"));
        Assert.Equal(0, lab.Pager.Snapshot().LostPages);
    }

    [Fact]
    public void Reclaim_and_eviction_of_the_same_pages_never_meet()
    {
        using var lab = Paged();
        using var target = lab.Pager.OpenReclaimTarget();
        lab.Guest.Run();
        long before = lab.Pager.Snapshot().PageIns;
        for (int turn = 0; lab.Pager.Snapshot().PageIns < before + 10_000; turn++)
        {
            var some = new PageRange(turn * 64 % Used / 64 * 64, 32);
            if (target.Hold(some))
            {
                target.LetGo(some);
            }

            if (target.Freeze(some.First))
            {
                target.Thaw(some.First);
            }
        }

        Assert.Equal((Used, 0, 0), lab.Guest.StopAndVerify());
    }

    [Fact]
    public void Freezing_holding_letting_go_and_dropping_allocate_nothing()
    {
        using var lab = Paged();
        using var target = lab.Pager.OpenReclaimTarget();
        long head = Enumerable.Range(0, (int)Used).First(p => lab.Table[p].State is PageState.Resident or PageState.ResidentClean);
        long dropped = 0;
        long takeable = 0;
        long least = long.MaxValue;
        for (int first = 0; first < 3_000; first += 300)
        {
            // Pages that are here and pages that lie on both sub-hosts, in one batch.
            var batch = new PageRange(first, 200);
            long before = GC.GetAllocatedBytesForCurrentThread();
            bool frozen = target.Freeze(head);
            bool held = target.Hold(batch);
            if (frozen)
            {
                target.Thaw(head);
            }

            target.LetGo(batch);
            takeable += target.Count(batch);
            held &= target.Hold(batch);
            _ = target.IsElsewhere(batch);
            dropped += target.Drop(batch);
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
            Assert.True(held);
        }

        Assert.Equal(takeable, dropped);
        Assert.InRange(target.RemoteDropped, 100, dropped - 100);
        Assert.Equal(0, least);
    }

    /// <summary>A guest of which two thirds lie on two sub-hosts, at rest.</summary>
    private static PagingLab Paged()
    {
        var lab = new PagingLab(pages: 4_000, used: Used, limit: 1_000);
        try
        {
            lab.StartPager();
            lab.Guest.Run();
            PagingLab.WaitFor(() => lab.Pager.Snapshot() is { PageIns: > 2_000 } f && f.RemotePages.Min() > 100, "pages lie on both sub-hosts");
            lab.Guest.Ask("stop", "stopped");
            PagingLab.WaitFor(
                () => lab.Table.LocalPages < 950 + 32 && lab.Table.Count(PageState.Evicting) + lab.Table.Count(PageState.Busy) + lab.Table.Count(PageState.Fetching) == 0,
                "the evictor rests");
            return lab;
        }
        catch
        {
            lab.Dispose();
            throw;
        }
    }
}
