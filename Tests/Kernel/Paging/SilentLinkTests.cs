using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>Connections to a sub-host from which nothing comes any more, while others do: what a link leaves behind that was away for a moment.</summary>
public sealed class SilentLinkTests
{
    /// <summary>What was held comes late, when other connections have long done its work.</summary>
    [Theory]
    [InlineData(true, 0)]
    [InlineData(false, 2)]
    public void The_guest_goes_on_by_others_and_what_comes_late_does_no_harm(bool tls, int userfaultfds)
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, tls: tls, userfaultfds: userfaultfds);
        using var link = new TestLink(lab.Stores[0].Port);
        lab.Stores[0].ReachedAt = link.Port;
        lab.StartPager();
        lab.Guest.Run();
        for (int turn = 0; turn < 4; turn++)
        {
            long before = lab.Pager.Snapshot().PageIns;
            PagingLab.WaitFor(() => lab.Pager.Snapshot().PageIns > before + 1_000, "paging");
            link.Hold();
            before = lab.Pager.Snapshot().PageInsBySub[0];
            PagingLab.WaitFor(() => lab.Pager.Snapshot().PageInsBySub[0] > before + 1_000, "paging from this very store goes on");
            link.LetGo();
        }

        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
        Assert.Equal((0, 0), (lab.Pager.Snapshot().LostPages, lab.Pager.Snapshot().Errors));
    }

    /// <summary>The store answers when the other connection is there and has not been gone over to.</summary>
    [Fact]
    public void A_store_that_answers_after_all_goes_on()
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, stores: 1);
        using var link = new TestLink(lab.Stores[0].Port);
        lab.Stores[0].ReachedAt = link.Port;
        const string point = "main.probe.connected";
        using var pager = lab.StartPagerProcess(resume: false, point + "=park");
        pager.WaitUntilPaging();
        lab.Guest.Run();
        PagingLab.WaitFor(() => pager.Figures()[0] > 1_000, "paging");
        link.Hold();
        PagingLab.WaitFor(() => File.Exists(Path.Combine(lab.Directory, point + ".reached")), "another connection is there");
        link.LetGo();
        long before = pager.Figures()[0];
        PagingLab.WaitFor(() => pager.Figures()[0] > before + 1_000, "it answers");
        File.WriteAllText(Path.Combine(lab.Directory, point + ".go"), "");
        before = pager.Figures()[0];
        PagingLab.WaitFor(() => pager.Figures()[0] > before + 2_000, "paging goes on");
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
        Assert.Equal(0, pager.Figures()[4]);
    }
}
