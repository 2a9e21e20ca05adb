using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
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

    /// <summary>
    /// A page that comes ahead is in the guest's memory and not yet in the table when QEMU discards it, as a balloon does, and the guest wants
    /// it again: that fault is answered when the table is right, and it counts as one that waited.
    /// </summary>
    [Fact]
    public void A_page_discarded_and_touched_just_as_it_comes_ahead_is_waited_for_and_comes()
    {
        const string Point = "main.prefetch.copied";
        const int Waiting = 9;
        const int Waited = 10;
        const int Ahead = 11;
        // One sub-host, so that the pages ahead come with one answer.
        using var lab = Away(2_000, 3_000, stores: 1);
        lab.StopPager();
        using var pager = lab.StartPagerProcess(resume: true, Point + "=park");
        pager.WaitUntilPaging();
        int page = 0;
        while (pager.Figures()[Ahead] == 0)
        {
            // As soon as it is connected for these.
            page += 50;
            lab.Guest.Ask($"read {page}", "read");
            lab.Guest.Ask($"read {page + 1}", "read");
        }

        page += 5;
        PagingLab.WaitFor(() => File.Exists(Path.Combine(lab.Directory, Point + ".reached")), "the next pages are here");
        long before = pager.Figures()[Waited];
        using (var ram = SparseFile.Open(lab.Process.RamPath, write: true))
        {
            Assert.Equal(0, SparseFile.PunchHole(ram, page * PageIndex.PageSize, PageIndex.PageSize));
        }

        lab.Guest.Say($"read {page}");
        PagingLab.WaitFor(() => pager.Figures()[Waiting] == 1, "the guest waits");
        File.WriteAllText(Path.Combine(lab.Directory, Point + ".go"), "");
        // Zeros, since it was discarded: not what the guest had written.
        Assert.Equal([page, 1, 0], lab.Guest.Expect("read"));
        byte[] content = new byte[PageIndex.PageSize];
        using (var ram = File.Open(lab.Process.RamPath, FileMode.Open, FileAccess.Read, FileShare.ReadWrite))
        {
            ram.Position = (long)page * PageIndex.PageSize;
            ram.ReadExactly(content);
        }

        Assert.Equal(-1, content.AsSpan().IndexOfAnyExcept((byte)0));
        Assert.Equal((0, before + 1), (pager.Figures()[Waiting], pager.Figures()[Waited]));
    }

    /// <summary>Fewer and fewer pages are asked for ahead of a guest that begins walks and does not go on with them.</summary>
    [Fact]
    public void Guesses_that_were_wrong_make_the_window_smaller()
    {
        using var lab = Away(4_000, 3_000);
        // One that knows nothing of the guest.
        lab.StopPager();
        lab.StartPager(resume: true);
        PagingLab.WaitFor(() => lab.Remote.All(store => store.Prefetch.IsReady), "the stores are connected");
        var asked = new List<long>();
        // A CPU's last four walks are remembered: each is given up, as missed, by the fourth after it.
        for (int walk = 0; walk < 20; walk++)
        {
            long before = lab.Pager.Snapshot().Prefetched;
            lab.Guest.Ask($"read {walk * 150}", "read");
            lab.Guest.Ask($"read {(walk * 150) + 1}", "read");
            // The thread that reads faults has asked before it has read this answer.
            asked.Add(lab.Pager.Snapshot().Prefetched - before);
        }

        Assert.Equal(8, asked[0]);
        Assert.Equal(1, asked[^1]);
        Assert.Equal(asked.OrderDescending(), asked);
        Assert.True(lab.Pager.Snapshot().PrefetchMisses > 10);
    }

    /// <summary>A guest whose first pages are all with the sub-hosts.</summary>
    private static PagingLab Away(long pages, long limit, int stores = 2)
    {
        var lab = new PagingLab(pages: pages + limit, used: pages, limit: limit, stores: stores, threads: 1);
        lab.StartPager();
        lab.Guest.Ask($"fill 0 {pages}", "filled");
        // Unused pages, of which there are as many as may be here, push all others out: at once, or when those of them that have left in place
        // of others are touched again.
        PagingLab.WaitFor(
            () =>
            {
                lab.Guest.Ask($"touch {pages} {pages + limit}", "touched");
                return lab.Pager.Snapshot().RemotePages.Sum() == pages;
            },
            "all are with the sub-hosts");
        return lab;
    }
}
