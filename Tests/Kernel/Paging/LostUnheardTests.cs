using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>A pager that is started again, and a sub-host that never comes back to say what it had.</summary>
public sealed class LostUnheardTests
{
    /// <summary>Whatever the pager was about when it was killed: a page is whole, or an error, and one that nobody used is neither.</summary>
    [Theory]
    [InlineData("main.evict.protected")]
    [InlineData("main.evict.read")]
    [InlineData("main.evict.acked")]
    [InlineData("main.evict.dropping")]
    [InlineData("main.evict.dropped")]
    [InlineData("main.evict.clean")]
    [InlineData("main.fault.copied")]
    public void What_only_it_had_is_a_memory_error_and_never_zeros(string point)
    {
        using var lab = new PagingLab(pages: 6_000, used: 4_000, limit: 1_500);
        using (var first = lab.StartPagerProcess(resume: false))
        {
            first.WaitUntilPaging();
            lab.Guest.Ask("fill 0 4000", "filled");
            // So that some that are here are clean, with their copies there.
            lab.Guest.Ask("touch 0 4000", "touched");
            first.Kill();
        }

        using (var second = lab.StartPagerProcess(resume: true, point + "=kill"))
        {
            lab.Guest.Say("touch 0 4000");
            lab.Guest.Say("fill 0 4000");
            second.WaitForExit();
        }

        lab.Stores[0].Vanish();
        lab.Gone.Add(0);
        lab.StartPager(resume: true, unheard: true);
        long lost = lab.Pager.Snapshot().LostPages;
        Assert.InRange(lost, 500, 3_500);
        // Some of them were filled ahead of the guest.
        Assert.All(Enumerable.Range(4_000, 2_000), page => Assert.NotEqual(PageState.Lost, lab.Table[page].State));
        Assert.Equal(0, lab.Guest.Expect("touched")[1]);
        long[] filled = lab.Guest.Expect("filled");
        Assert.Equal((4_000, 0), (filled[0], filled[1]));
        Assert.Equal((4_000, 0, filled[2] + lost), lab.Guest.StopAndVerify());
        var figures = lab.Pager.Snapshot();
        Assert.Equal(("lost", lost), (figures.State, figures.LostPages));
        Assert.Contains("given up", figures.Error, StringComparison.Ordinal);
        lab.Stores[0].Start();
    }

    [Fact]
    public void What_the_guest_had_given_back_before_is_not_lost()
    {
        using var lab = new PagingLab(pages: 4_000, used: 1_000, limit: 500, stores: 1);
        lab.StartPager();
        lab.Guest.Ask("fill 0 1000", "filled");
        PagingLab.WaitFor(() => lab.Pager.Snapshot().PageOuts > 490, "pages have left");
        var freed = new PageRange(0, 300);
        using (var target = lab.Pager.OpenReclaimTarget())
        {
            Assert.True(target.Hold(freed));
            Assert.Equal(300, target.Drop(freed));
        }

        // One of them is used again, and leaves again.
        lab.Guest.Ask("write 5", "wrote");
        lab.Guest.Ask("touch 300 1000", "touched");
        PagingLab.WaitFor(() => lab.Table[5].State == PageState.Remote, "it has left again");
        lab.StopPager();
        lab.Stores[0].Vanish();
        lab.Gone.Add(0);
        lab.StartPager(resume: true, unheard: true);
        Assert.Equal(PageState.Lost, lab.Table[5].State);
        Assert.All(Enumerable.Range(0, 300).Where(page => page != 5), page => Assert.NotEqual(PageState.Lost, lab.Table[page].State));
        Assert.All(Enumerable.Range(300, 700), page => Assert.NotEqual(PageState.Unused, lab.Table[page].State));
        lab.Stores[0].Start();
    }

    [Fact]
    public void Without_a_note_of_what_was_away_all_that_nobody_has_is_lost()
    {
        using var lab = new PagingLab(pages: 4_000, used: 1_000, limit: 500);
        lab.StartPager();
        lab.Guest.Ask("fill 0 1000", "filled");
        PagingLab.WaitFor(() => lab.Pager.Snapshot().PageOuts > 490, "pages have left");
        lab.StopPager();
        File.Delete(Path.Combine(lab.StateDirectory, AwayPages.FileName));
        lab.Stores[0].Vanish();
        lab.Gone.Add(0);
        lab.StartPager(resume: true, unheard: true);
        Assert.Equal(0, lab.Table.Count(PageState.Unused));
        var (verified, errors, _) = lab.Guest.StopAndVerify();
        Assert.Equal((1_000, 0), (verified, errors));
        lab.Stores[0].Start();
    }
}
