using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>A sub-host's worker that hangs: the network is there, and no answer comes.</summary>
public sealed class HungStoreTests
{
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Its_pages_are_waited_for_which_is_said_and_it_goes_on_when_it_does(bool tls)
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, tls: tls) { AnswerTimeout = TimeSpan.FromSeconds(1) };
        var hung = lab.MoveToProcess(0);
        lab.StartPager();
        lab.Guest.Run();
        for (int turn = 0; turn < 2; turn++)
        {
            long before = lab.Pager.Snapshot().PageIns;
            PagingLab.WaitFor(() => lab.Pager.Snapshot().PageIns > before + 2_000, "paging");
            hung.Freeze();
            PagingLab.WaitFor(() => lab.Pager.Snapshot() is { State: "waiting", Outstanding: > 0, Error: not null }, "it is said that faults wait for it");
            Assert.Contains("sub0", lab.Pager.Snapshot().Error, StringComparison.Ordinal);
            hung.Thaw();
            PagingLab.WaitFor(() => lab.Pager.Snapshot().State == "paging", "it is back");
        }

        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
        Assert.Equal(0, lab.Pager.Snapshot().LostPages);
    }

    [Fact]
    public void With_two_copies_the_guest_goes_on_from_the_other()
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, copies: 2) { AnswerTimeout = TimeSpan.FromSeconds(1) };
        var hung = lab.MoveToProcess(0);
        lab.StartPager();
        lab.Guest.Run();
        PagingLab.WaitFor(() => lab.Pager.Snapshot() is { PageIns: > 2_000, ShortPages: 0 }, "all pages that are away are at both");
        hung.Freeze();
        PagingLab.WaitFor(() => lab.Pager.Snapshot() is { State: "degraded", Error: not null }, "it is said that one does not answer");
        long before = lab.Pager.Snapshot().PageIns;
        PagingLab.WaitFor(() => lab.Pager.Snapshot().PageIns > before + 3_000, "paging goes on from the other");
        // Every page, also those that it was asked for when it hung.
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
        hung.Thaw();
        PagingLab.WaitFor(() => lab.Pager.Snapshot() is { State: "paging", ShortPages: 0, StaleCopies: 0 }, "it is back, and all is at both");
        lab.Stores[1].Stop();
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
        lab.Stores[1].Start();
        Assert.Equal(0, lab.Pager.Snapshot().LostPages);
    }
}
