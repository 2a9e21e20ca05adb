using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>What a switch-over left at the source goes where it belongs, whoever dies on the way.</summary>
public sealed class SourceDrainTests
{
    private const int PageOuts = 1;
    private const int Stale = 6;
    private const int Taken = 7;
    private const int Left = 8;

    [Theory]
    [InlineData(true, 1)]
    [InlineData(false, 1)]
    [InlineData(true, 2)]
    public void What_has_no_room_here_goes_to_the_sub_hosts_straight(bool tls, int copies)
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, tls: tls, copies: copies, left: 6_000);
        using (var pager = lab.StartPagerProcess(resume: false))
        {
            pager.WaitUntilPaging();
            PagingLab.WaitFor(() => pager.Figures()[Left] == 0, "the source is empty");
            // The guest has not run: whatever is at a sub-host has come there without having been here.
            Assert.Equal(0, pager.Figures()[PageOuts]);
            Assert.InRange(pager.Figures()[Taken], 4_000, 6_000);
            Assert.Equal(0, lab.Source!.Count);
            Assert.All(lab.Stores, store => Assert.InRange(store.Pages.StoredPages, 1_000, 6_000));
            PagingLab.WaitFor(() => pager.Figures() is var f && f[5] == 0 && f[Stale] == 0, "all is as it should be");
            Assert.Equal(0, pager.Figures()[4]);
            Assert.InRange(lab.ResidentBytes(), 1, 2_000 * 4096);
            Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
            pager.Kill();
        }

        using var next = lab.StartPagerProcess(resume: true);
        next.WaitUntilPaging();
        lab.Guest.Run();
        PagingLab.WaitFor(() => next.Figures()[0] > 2_000, "it goes on");
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
    }

    [Theory]
    [InlineData("main.take.asking")]
    [InlineData("main.take.stored")]
    [InlineData("main.take.counted")]
    [InlineData("main.drain.releasing")]
    [InlineData("main.drain.released")]
    public void A_pager_killed_on_the_way_is_followed_by_one_that_goes_on(string point)
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, left: 6_000);
        using (var first = lab.StartPagerProcess(resume: false, point + "=kill"))
        {
            first.WaitUntilPaging();
            lab.Guest.Run();
            first.WaitForExit();
            Assert.True(File.Exists(Path.Combine(lab.Directory, point + ".reached")), "it died where it should");
        }

        using (var second = lab.StartPagerProcess(resume: true))
        {
            second.WaitUntilPaging();
            PagingLab.WaitFor(() => second.Figures() is var f && f[Left] == 0 && f[Stale] == 0 && f[0] > 3_000, "the source is empty, and nothing old is left");
            second.Kill();
        }

        // What was taken and given back on the way is not believed by one that comes later.
        using var third = lab.StartPagerProcess(resume: true);
        third.WaitUntilPaging();
        PagingLab.WaitFor(() => third.Figures()[0] > 2_000, "it goes on");
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
        Assert.Equal(0, third.Figures()[4]);
    }

    /// <summary>
    /// The sub-host takes the pages, and nobody hears of it; they are taken again, by whichever sub-host. One that lists all that is
    /// anywhere finds each page once.
    /// </summary>
    [Fact]
    public void What_was_taken_unheard_counts_for_nothing()
    {
        const string Point = "main.take.asked";
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, stores: 3, left: 6_000);
        using (var pager = lab.StartPagerProcess(resume: false, Point + "=cut"))
        {
            pager.WaitUntilPaging();
            lab.Guest.Run();
            PagingLab.WaitFor(() => File.Exists(Path.Combine(lab.Directory, Point + ".reached")), "the connections are cut");
            PagingLab.WaitFor(() => pager.Figures() is var f && f[Left] == 0 && f[Stale] == 0, "the source is empty, and nothing old is left");
            lab.Guest.Ask("stop", "stopped");
            pager.Kill();
        }

        using var next = lab.StartPagerProcess(resume: true);
        next.WaitUntilPaging();
        Assert.Equal(0, next.Figures()[4]);
        lab.Guest.Run();
        PagingLab.WaitFor(() => next.Figures()[0] > 2_000, "it goes on");
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
    }

    /// <summary>Told to take pages, a sub-host dies; its pages come another way, and what it had taken counts for nothing.</summary>
    [Theory]
    [InlineData("main.take.asking")]
    [InlineData("main.take.stored")]
    public void A_sub_host_that_dies_on_the_way_costs_nothing(string point)
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, left: 6_000);
        using (var pager = lab.StartPagerProcess(resume: false, point + "=park"))
        {
            pager.WaitUntilPaging();
            lab.Guest.Run();
            PagingLab.WaitFor(() => File.Exists(Path.Combine(lab.Directory, point + ".reached")), "it stands still on the way");
            lab.Stores[0].Stop();
            File.WriteAllText(Path.Combine(lab.Directory, point + ".go"), "");
            PagingLab.WaitFor(() => pager.Figures() is var f && f[Left] < 3_000, "the other takes pages");
            lab.Stores[0].Start();
            PagingLab.WaitFor(() => pager.Figures() is var f && f[Left] == 0 && f[Stale] == 0, "the source is empty, and nothing old is left");
            Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
            pager.Kill();
        }

        lab.Guest.Run();
        using var next = lab.StartPagerProcess(resume: true);
        next.WaitUntilPaging();
        PagingLab.WaitFor(() => next.Figures()[0] > 2_000, "it goes on");
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
    }

    [Theory]
    [InlineData("main.take.asking")]
    [InlineData("main.take.counted")]
    public void A_source_whose_worker_is_killed_on_the_way_is_waited_for(string point)
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, left: 6_000);
        using var pager = lab.StartPagerProcess(resume: false, point + "=park");
        pager.WaitUntilPaging();
        lab.Guest.Run();
        PagingLab.WaitFor(() => File.Exists(Path.Combine(lab.Directory, point + ".reached")), "it stands still on the way");
        lab.Source!.Stop();
        File.WriteAllText(Path.Combine(lab.Directory, point + ".go"), "");
        PagingLab.WaitFor(() => pager.Figures()[4] > 0, "it is told");
        lab.Source.Start();
        PagingLab.WaitFor(() => pager.Figures() is var f && f[Left] == 0 && f[Stale] == 0, "the source is empty, and nothing old is left");
        Assert.Equal(0, lab.Source.Count);
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
    }
}
