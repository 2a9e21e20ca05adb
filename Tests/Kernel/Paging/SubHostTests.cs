using FCtrans.Agent.Paging;
using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>Sub-hosts that leave, or are gone, while the guest works.</summary>
public sealed class SubHostTests
{
    [Theory]
    [InlineData(Player.Process, 8_000, 3_000, 3_000)]
    [InlineData(Player.Kvm, 2_560, 768, 500)]
    public void A_sub_host_that_leaves_is_emptied_while_the_guest_runs(Player player, long used, long limit, long some)
    {
        using var lab = new PagingLab(player, used, limit, stores: 3);
        lab.StartPager();
        lab.Oracle.Run();
        PagingLab.WaitFor(() => lab.Pager.Snapshot().RemotePages.All(n => n > 500), "all have pages");
        lab.Pager.Evacuate(1);
        PagingLab.WaitFor(() => lab.Pager.CopiesAt(1) == 0, "it has no page any more");
        Assert.Equal(0, lab.Stores[1].Pages.StoredPages);
        lab.Stores[1].Stop();
        long before = lab.Pager.Snapshot().PageIns;
        PagingLab.WaitFor(() => lab.Pager.Snapshot().PageIns > before + some, "paging goes on without it");
        Assert.Equal((used, 0, 0), lab.Oracle.StopAndVerify());
        Assert.Equal(("paging", 0L), (lab.Pager.Snapshot().State, lab.Pager.Snapshot().LostPages));
        lab.Stores[1].Start();
    }

    [Fact]
    public void What_only_a_sub_host_had_that_is_given_up_is_a_memory_error_and_all_else_is_right()
    {
        using var lab = new PagingLab(pages: 6_000, used: 4_000, limit: 1_500);
        lab.StartPager();
        lab.Guest.Run();
        PagingLab.WaitFor(() => lab.Pager.Snapshot().RemotePages.All(n => n > 500), "both have pages");
        lab.Guest.Ask("stop", "stopped");
        lab.Stores[0].Stop();
        long page = Enumerable.Range(0, 4_000).First(p => lab.Table[p] == new PageEntry(PageState.Remote, 0));
        // A fault waits for it already.
        lab.Guest.Say($"read {page}");
        PagingLab.WaitFor(() => lab.Pager.Snapshot() is { State: "waiting", Outstanding: > 0 }, "the fault waits for the sub-host");
        using var lost = lab.Pager.GiveUp(0);
        Assert.Equal([page, 0, 1], lab.Guest.Expect("read"));
        long count = lost.Count();
        var figures = lab.Pager.Snapshot();
        Assert.Equal(("lost", count), (figures.State, figures.LostPages));
        Assert.Contains("sub0", figures.Error, StringComparison.Ordinal);
        PagingLab.WaitFor(() => lab.Pager.CopiesAt(0) == 0, "pages that are here do not name it any more");
        // Every lost page is an error, and no other is wrong.
        Assert.Equal((4_000, 0, 1 + count), lab.Guest.StopAndVerify());
        lab.Stores[0].Start();
    }
}
