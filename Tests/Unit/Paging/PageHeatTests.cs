using FCtrans.Agent.Paging;
using FCtrans.Agent.Tracking;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Paging;

/// <summary>Which pages the evictor passes over, and what knowing that costs. Alone: it measures this process.</summary>
[Collection(Name)]
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class PageHeatTests
{
    private const string Name = "memory of the process";
    private const long Limit = 300;
    private const int Times = 4000;

    /// <summary>Of the 64 MiB that the agent may take besides.</summary>
    private const long SomeOfTheRest = 16 << 20;

    [Fact]
    public void A_page_is_spared_the_more_often_it_came_back_while_it_would_still_have_fit()
    {
        using var heat = new PageHeat(10_000, null);
        double before = 0;
        for (int returns = 1; returns <= 3; returns++)
        {
            heat.Left(7, Limit);
            heat.CameBack(7);
            double spared = Spared(heat, 7);
            Assert.InRange(spared, before + 0.01, 0.999);
            before = spared;
        }

        Assert.Equal(0, Spared(heat, 8));
        using var hot = new PageBitmap(10_000);
        heat.AddHotTo(hot);
        Assert.Equal((1, true), (hot.Count(), hot[7]));
        heat.Policy = EvictionPolicy.OldestFirst;
        Assert.Equal(0, Spared(heat, 7));
    }

    /// <summary>A scan goes round through more memory than fits: keeping some of it would gain nothing.</summary>
    [Fact]
    public void Pages_that_come_back_later_than_they_could_have_stayed_are_not_spared_and_cool_down()
    {
        using var heat = new PageHeat(10_000, null);
        heat.Left(5000, Limit);
        heat.CameBack(5000);
        Assert.True(Spared(heat, 5000) > 0);
        for (int round = 0; round < 5; round++)
        {
            heat.Left(5000, Limit);
            for (long page = 0; page < 2 * Limit; page++)
            {
                heat.Left(page, Limit);
                heat.CameBack((page + 20) % (2 * Limit));
            }

            heat.CameBack(5000);
        }

        Assert.Equal(0, Spared(heat, 5000));
        Assert.All(Enumerable.Range(0, 10), page => Assert.Equal(0, Spared(heat, page)));
    }

    /// <summary>With each number of a period in use, and pages beside it in the same byte.</summary>
    [Fact]
    public void What_is_known_of_one_page_is_not_lost_with_what_is_forgotten_of_another()
    {
        using var heat = new PageHeat(64, null);
        for (int turn = 0; turn < 3; turn++)
        {
            foreach (long page in (long[])[10, 11, 12])
            {
                heat.Left(page, Limit);
                heat.CameBack(page);
            }
        }

        for (int turn = 0; turn < 20 * Limit; turn++)
        {
            heat.Left(40, Limit);
        }

        using var hot = new PageBitmap(64);
        heat.AddHotTo(hot);
        Assert.Equal([10L, 11, 12], Enumerable.Range(0, 64).Where(page => hot[page]).Select(page => (long)page));
        heat.Left(10, Limit);
        heat.CameBack(10);
        Assert.True(Spared(heat, 10) > 0.9);
    }

    [Fact]
    public void Pages_that_the_guest_holds_for_hot_get_a_second_chance_but_do_not_stay_for_ever()
    {
        using var heat = new PageHeat(1000, null);
        heat.GuestHot[3] = true;
        Assert.InRange(Spared(heat, 3), 0.5, 0.95);
        Assert.Equal(0, Spared(heat, 4));
        heat.Policy = EvictionPolicy.OldestFirst;
        Assert.Equal(0, Spared(heat, 3));
    }

    [Fact]
    public void Pinned_pages_stay_and_where_there_are_too_many_they_leave_last()
    {
        using var pinned = new PageBitmap(1000);
        pinned.Fill(new(0, 200), true);
        using var heat = new PageHeat(1000, pinned);
        Assert.Equal(1, Spared(heat, 5, limit: 300));
        Assert.InRange(Spared(heat, 5, limit: 250), 0.8, 0.99);
        Assert.Equal(0, Spared(heat, 500, limit: 300));
    }

    [Fact]
    public void A_set_of_pinned_pages_is_replaced_by_the_next_with_its_count()
    {
        using var first = new PageBitmap(1000);
        first.Fill(new(0, 250), true);
        using var heat = new PageHeat(1000, first);
        for (int turn = 1; turn <= 3; turn++)
        {
            heat.NextPinned.Clear();
            heat.NextPinned.Fill(new(turn * 250, 200), true);
            Assert.True(heat.IsPinned((turn - 1) * 250));
            heat.PinNext();
            Assert.Equal((false, true), (heat.IsPinned((turn - 1) * 250), heat.IsPinned(turn * 250)));
            // 250 pages would be too many to stay.
            Assert.Equal(1, Spared(heat, turn * 250, limit: 300));
            using var hot = new PageBitmap(1000);
            heat.AddHotTo(hot);
            Assert.Equal(200, hot.Count());
        }

        Assert.Equal(250, first.Count());
    }

    /// <summary>
    /// A VM of 32 GiB that uses all of its memory, a quarter of it here, each page of which has left and come back. What the paging engine
    /// knows of pages may take a byte a page and eight a page that is here; what else it has must fit into the rest.
    /// </summary>
    [Fact]
    public void What_is_known_of_all_pages_fits_into_a_byte_a_page_and_eight_a_resident_one()
    {
        const long Pages = 32L << 18;
        const long Resident = Pages / 4;
        long before = ResidentBytes();
        using var table = new PageTable(Pages);
        using var queue = new PageQueue(Pages, Resident);
        using var heat = new PageHeat(Pages, null);
        using var seenFree = new PageBitmap(Pages);
        using var writeWanted = new AtomicPageBits(Pages);
        table.SetRemote(new(0, Pages), 0);
        seenFree.Fill(new(0, Pages), true);
        for (long page = 0; page < Pages; page++)
        {
            heat.Left(page, Resident);
            heat.CameBack(page);
            heat.GuestHot[page] = true;
            writeWanted.TrySet(page);
            queue.Push(page);
            if (queue.Count > Resident)
            {
                queue.TryPop(out _);
            }
        }

        long taken = ResidentBytes() - before;
        Assert.InRange(taken, Pages, Pages + (8 * Resident) + SomeOfTheRest);
    }

    private static double Spared(PageHeat heat, long page, long limit = Limit) =>
        (double)Enumerable.Range(0, Times).Count(_ => heat.Spares(page, limit)) / Times;

    private static long ResidentBytes() => long.Parse(
        File.ReadLines("/proc/self/status").First(l => l.StartsWith("RssAnon:", StringComparison.Ordinal)).Split(' ', StringSplitOptions.RemoveEmptyEntries)[^2],
        System.Globalization.CultureInfo.InvariantCulture) << 10;
}
