using FCtrans.Agent.Paging;
using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

public sealed class PrefetchTests
{
    [Fact]
    public void A_guest_that_goes_through_its_memory_in_order_finds_most_of_it_there()
    {
        using var lab = Away(12_000, 2_000);
        var before = lab.Pager.Snapshot();
        Assert.Equal((12_000, 0, 0), lab.Guest.StopAndVerify());
        var after = lab.Pager.Snapshot();
        // How many depends on how fast the guest is: some thousands at least. What was brought early is not waited for.
        Assert.InRange(after.PrefetchHits - before.PrefetchHits, 1_000, 12_000);
        Assert.InRange(after.RemoteLatency.Count - before.RemoteLatency.Count, 1, 11_000);
        Assert.Equal("paging", after.State);

        lab.Pager.Prefetch = false;
        Assert.Equal((12_000, 0, 0), lab.Guest.StopAndVerify());
        Assert.Equal(after.Prefetched, lab.Pager.Snapshot().Prefetched);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(-1)]
    [InlineData(3)]
    [InlineData(-7)]
    public void Steps_of_any_length_up_and_down_are_seen(int step)
    {
        using var lab = Away(4_000, 3_000);
        // Between others, as several walks of a guest are.
        int page = 2_000;
        for (int i = 0; i < 4; i++, page += step)
        {
            Assert.Equal([page, 0, 0], lab.Guest.Ask($"read {page}", "read"));
            Assert.Equal([10 + i * 300, 0, 0], lab.Guest.Ask($"read {10 + i * 300}", "read"));
        }

        int next = page;
        PagingLab.WaitFor(
            () => lab.Table[next].State == PageState.ResidentClean && lab.Table[next + step].State == PageState.ResidentClean
                && lab.Table.Count(PageState.Fetching) == 0,
            "the next pages are here before they are touched");
        long demanded = lab.Pager.Snapshot().RemoteLatency.Count;
        Assert.Equal([next, 0, 0], lab.Guest.Ask($"read {next}", "read"));
        Assert.Equal(demanded, lab.Pager.Snapshot().RemoteLatency.Count);
    }

    [Fact]
    public void Touches_without_order_bring_nothing_early()
    {
        using var lab = Away(4_000, 3_000);
        for (int i = 0; i < 60; i++)
        {
            int page = (i * 977) % 4_000;
            lab.Guest.Ask($"read {page}", "read");
        }

        Assert.Equal(0, lab.Pager.Snapshot().Prefetched);
    }

    [Theory]
    [InlineData(300)]
    [InlineData(500)]
    public void A_window_that_is_cut_for_want_of_room_asks_for_nothing_beyond_it(int limit)
    {
        // The evictor is slower than the guest: there is less and less room, and the window shrinks behind what was asked for.
        using var lab = Away(12_000, limit);
        Assert.Equal((12_000, 0, 0), lab.Guest.StopAndVerify());
        // A few more than the limit are the faults', which never wait for the evictor.
        Assert.InRange(lab.Pager.Snapshot().PeakResidentPages, 1, limit + 64);
    }

    /// <summary>A guest whose first pages are all with the sub-hosts.</summary>
    private static PagingLab Away(long pages, long limit)
    {
        var lab = new PagingLab(pages: pages + limit, used: pages, limit: limit, threads: 1);
        lab.StartPager();
        lab.Guest.Ask($"fill 0 {pages}", "filled");
        // Unused pages, of which there are as many as may be here, push all others out.
        lab.Guest.Ask($"touch {pages} {pages + limit}", "touched");
        PagingLab.WaitFor(() => lab.Pager.Snapshot().RemotePages.Sum() == pages, "all are with the sub-hosts");
        return lab;
    }
}
