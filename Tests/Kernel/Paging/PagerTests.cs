using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using Xunit;
using Xunit.Abstractions;

namespace FCtrans.Kernel.Tests.Paging;

public sealed class PagerTests(ITestOutputHelper output)
{
    [Theory]
    [InlineData(true, 0)]
    [InlineData(false, 0)]
    [InlineData(false, 4)]
    public void A_guest_with_half_of_its_memory_elsewhere_never_sees_a_wrong_byte(bool tls, int userfaultfds)
    {
        using var lab = new PagingLab(pages: 20_000, used: 12_000, limit: 6_000, tls: tls, userfaultfds: userfaultfds);
        lab.StartPager();
        lab.Guest.Run();
        PagingLab.WaitFor(() => lab.Pager.Snapshot().PageIns > 5_000, "5,000 page-ins");
        long allocated = lab.Pager.AllocatedBytes;
        long peak = 0;
        PagingLab.WaitFor(
            () =>
            {
                peak = Math.Max(peak, lab.ResidentBytes());
                return lab.Pager.Snapshot().PageIns > 30_000;
            },
            "30,000 page-ins");
        var (pages, errors, busErrors) = lab.Guest.StopAndVerify();
        var figures = lab.Pager.Snapshot();
        output.WriteLine($"{figures} {string.Join(' ', figures.PageInsBySub)} / {string.Join(' ', figures.PageOutsBySub)}");
        Assert.Equal((12_000, 0, 0), (pages, errors, busErrors));
        Assert.All(figures.PageInsBySub, n => Assert.True(n > 1000));
        Assert.All(figures.PageOutsBySub, n => Assert.True(n > 1000));
        Assert.True(figures.CleanDrops > 100, "pages that were only read leave without being sent");
        Assert.True(figures.ZeroDrops > 100, "pages of zeros become unused");
        Assert.Equal(0, figures.Errors);
        Assert.Equal("paging", figures.State);
        Assert.InRange(peak, 1, 6_000 * 4096 * 105L / 100);
        PagingLab.WaitFor(
            () => lab.Pager.Snapshot() is var f && f.UnusedPages + f.ResidentPages + f.RemotePages.Sum() == 20_000, "every page is somewhere");
        // 60,000 faults and as many evictions: a byte each would be seen. Each lock makes its event once, when it is first contended.
        Assert.InRange(lab.Pager.AllocatedBytes - allocated, 0, 16 * 1024);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Fresh_memory_costs_no_page_in(bool prefetch)
    {
        using var lab = new PagingLab(pages: 20_000, used: 8_000, limit: 12_000);
        lab.StartPager();
        lab.Pager.Prefetch = prefetch;
        PagingLab.WaitFor(() => lab.Remote.All(r => r.IsConnected), "the stores are connected");
        long received = lab.Pager.Snapshot().BytesIn;
        Assert.Equal([10_000, 0, 0], lab.Guest.Ask("touch 8000 18000", "touched"));
        PagingLab.WaitFor(
            () => lab.Pager.Snapshot() is var f && f.UnusedFaults == f.ResidentPages && f.UnusedFaults * 4096 == lab.ResidentBytes(),
            "what was being filled ahead of the guest is");
        var figures = lab.Pager.Snapshot();
        Assert.Equal(0, figures.PageIns);
        // A greeting may still have been on its way.
        Assert.InRange(figures.BytesIn - received, 0, 4095);
        // In order: most pages are there before they are touched, and hardly more than are touched.
        Assert.InRange(figures.UnusedFaults, 10_000, prefetch ? 10_064 : 10_000);
        Assert.InRange(figures.UnusedLatency.Count, prefetch ? 1 : 10_000, prefetch ? 2_000 : 10_000);
    }

    [Fact]
    public void Pages_that_the_guest_had_free_at_the_last_look_leave_last()
    {
        using var lab = new PagingLab(pages: 6_000, used: 6_000, limit: 7_000);
        lab.StartPager();
        lab.Guest.Ask("fill 0 6000", "filled");
        lab.Pager.SeenFree.Fill(new(0, 2_000), true);

        // The oldest are those; there are others.
        lab.Pager.LimitPages = 3_000;
        PagingLab.WaitFor(() => lab.Pager.Snapshot().ResidentPages < 3_000, "half of them have left");
        Assert.All(Enumerable.Range(0, 2_000), page => Assert.Equal(PageState.Resident, lab.Table[page].State));

        // Then there are not.
        lab.Pager.LimitPages = 1_000;
        PagingLab.WaitFor(() => lab.Pager.Snapshot().ResidentPages < 1_000, "they leave too");
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
    }

    [Fact]
    public void Who_wants_to_know_is_told_once_when_so_many_pages_have_come()
    {
        using var lab = new PagingLab(pages: 6_000, used: 3_000, limit: 6_000);
        lab.StartPager();
        lab.Pager.Prefetch = false;
        using var busy = new AutoResetEvent(false);
        lab.Pager.TellAfter(500, busy);
        lab.Guest.Ask("touch 3000 3499", "touched");
        Assert.False(busy.WaitOne(0));
        lab.Guest.Ask("touch 3499 4600", "touched");
        Assert.True(busy.WaitOne(TimeSpan.FromSeconds(60)));
        Assert.False(busy.WaitOne(0));
    }

    [Theory]
    [InlineData(Player.Process, 8_000)]
    [InlineData(Player.Kvm, 4_096)]
    public void A_limit_that_is_lowered_is_kept(Player player, long used)
    {
        using var lab = new PagingLab(player, used, limit: 9_000);
        lab.StartPager();
        lab.Oracle.Run();
        PagingLab.WaitFor(() => lab.Pager.Snapshot().ResidentPages > 4_000, "4,000 pages are here");
        lab.Pager.LimitPages = 2_000;
        PagingLab.WaitFor(() => lab.ResidentBytes() <= 2_000 * 4096 * 105L / 100, "only 2,000 pages are here");
        Assert.Equal((used, 0, 0), lab.Oracle.StopAndVerify());
        lab.Pager.LimitPages = 9_000;
        Assert.Equal((used, 0, 0), lab.Oracle.StopAndVerify());
    }

    [Theory]
    [InlineData(Player.Process, 8_000, 3_000, 2_000)]
    [InlineData(Player.Kvm, 2_560, 768, 300)]
    public void A_sub_hosts_worker_that_goes_away_and_comes_back_costs_time_and_nothing_else(Player player, long used, long limit, long some)
    {
        using var lab = new PagingLab(player, used, limit);
        lab.StartPager();
        lab.Oracle.Run();
        for (int turn = 0; turn < 4; turn++)
        {
            long before = lab.Pager.Snapshot().PageIns;
            PagingLab.WaitFor(() => lab.Pager.Snapshot().PageIns > before + some, "paging");
            var store = lab.Stores[turn % 2];
            store.Stop();
            PagingLab.WaitFor(() => lab.Pager.Snapshot() is { State: "waiting", Outstanding: > 0, Error: not null }, "faults wait for the sub-host");
            store.Start();
            PagingLab.WaitFor(() => lab.Pager.Snapshot().State == "paging", "the sub-host is back");
        }

        Assert.Equal((used, 0, 0), lab.Oracle.StopAndVerify());
        Assert.Equal(0, lab.Pager.Snapshot().LostPages);
    }

    [Fact]
    public void A_page_whose_only_copy_is_gone_is_a_memory_error_and_never_zeros()
    {
        using var lab = new PagingLab(pages: 4_000, used: 3_000, limit: 1_000, stores: 1);
        lab.StartPager();
        lab.Guest.Run();
        PagingLab.WaitFor(() => lab.Pager.Snapshot().RemotePages[0] > 1_000, "1,000 pages are remote");
        lab.Guest.Ask("stop", "stopped");
        long page = Enumerable.Range(0, 3_000).First(p => lab.Table[p].State == PageState.Remote);
        lab.Stores[0].Pages.Discard(new PageRange(page, 1));
        Assert.Equal([page, 0, 1], lab.Guest.Ask($"read {page}", "read"));
        var figures = lab.Pager.Snapshot();
        Assert.Equal("lost", figures.State);
        Assert.Equal(1, figures.LostPages);
        Assert.Contains("sub0", figures.Error, StringComparison.Ordinal);
        Assert.Equal([page, 0, 2], lab.Guest.Ask($"read {page}", "read"));
    }

    [Fact]
    public void Sub_hosts_that_are_full_of_old_copies_make_room()
    {
        // Nothing to spare: what is here and both stores together hold just what the guest uses, so old copies have to go.
        using var lab = new PagingLab(pages: 10_000, used: 6_000, limit: 2_000, storeLimit: 2_200);
        lab.StartPager();
        lab.Guest.Run();
        PagingLab.WaitFor(() => lab.Pager.Snapshot().PageIns > 20_000, "20,000 page-ins");
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
        Assert.Equal(0, lab.Pager.Snapshot().LostPages);
    }

    [Fact]
    public void Sub_hosts_without_room_make_the_guest_wait_and_say_why()
    {
        using var lab = new PagingLab(pages: 10_000, used: 6_000, limit: 2_000, storeLimit: 500);
        lab.StartPager();
        lab.Guest.Say("run");
        lab.Guest.Expect("running");
        PagingLab.WaitFor(
            () => lab.Pager.Snapshot() is { State: "waiting", Outstanding: > 0, Error: not null } f && f.Error.Contains("room"),
            "it says that there is no room, and that faults wait");
        Assert.InRange(lab.ResidentBytes(), 1, 2_000 * 4096 * 105L / 100);
        lab.Pager.LimitPages = 8_000;
        long before = lab.Guest.Operations();
        PagingLab.WaitFor(() => lab.Guest.Operations() > before + 1000, "the guest goes on with more memory here");
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
    }

    [Fact]
    public void Without_unused_tracking_pages_of_zeros_are_kept_as_any_other()
    {
        using var lab = new PagingLab(pages: 4_000, used: 3_000, limit: 1_000, trackUnused: false);
        lab.StartPager();
        lab.Guest.Ask("touch 0 3000", "touched");
        PagingLab.WaitFor(() => lab.Pager.Snapshot().PageOuts >= 1_900, "pages of zeros are sent");
        Assert.Equal((3_000, 0, 0), lab.Guest.StopAndVerify());
        Assert.True(lab.Pager.Snapshot().PageIns > 1_000);
        Assert.Equal(0, lab.Pager.Snapshot().ZeroDrops);
    }

    [Fact]
    public void A_pager_in_another_life_goes_on_from_what_it_finds()
    {
        using var lab = new PagingLab(pages: 10_000, used: 8_000, limit: 3_000);
        lab.StartPager();
        lab.Guest.Run();
        for (int turn = 0; turn < 3; turn++)
        {
            PagingLab.WaitFor(() => lab.Pager.Snapshot().PageIns > 2_000, "paging");
            lab.StopPager();
            lab.StartPager(resume: true);
        }

        PagingLab.WaitFor(() => lab.Pager.Snapshot().PageIns > 2_000, "paging");
        Assert.Equal((8_000, 0, 0), lab.Guest.StopAndVerify());
    }
}
