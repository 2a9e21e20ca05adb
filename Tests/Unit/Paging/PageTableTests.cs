using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using Xunit;

namespace FCtrans.Unit.Tests.Paging;

public sealed class PageTableTests
{
    /// <summary>The transitions that PageTable's header lists; every other pair is illegal.</summary>
    private static readonly HashSet<(PageState, PageState)> s_legal =
    [
        (PageState.Unused, PageState.Busy),
        (PageState.Remote, PageState.Fetching),
        (PageState.Remote, PageState.Busy),
        (PageState.Remote, PageState.Lost),
        (PageState.Fetching, PageState.Resident),
        (PageState.Fetching, PageState.ResidentClean),
        (PageState.Fetching, PageState.Remote),
        (PageState.Fetching, PageState.Lost),
        (PageState.Resident, PageState.Evicting),
        (PageState.Resident, PageState.Busy),
        (PageState.ResidentClean, PageState.Busy),
        (PageState.Evicting, PageState.Busy),
        (PageState.Busy, PageState.Resident),
        (PageState.Busy, PageState.ResidentClean),
        (PageState.Busy, PageState.Remote),
    ];

    [Fact]
    public void Exactly_the_listed_transitions_are_legal()
    {
        using var table = new PageTable(10);
        foreach (var from in Enum.GetValues<PageState>())
        {
            foreach (var to in Enum.GetValues<PageState>())
            {
                Assert.Equal(s_legal.Contains((from, to)), table.IsLegal(new(from, 3), new(to, 3)));
            }
        }

        Assert.True(table.IsLegal(new(PageState.Unused), new(PageState.Busy)));
        Assert.True(table.IsLegal(new(PageState.Busy, 3), new(PageState.Unused)));
        Assert.False(table.IsLegal(new(PageState.Busy, 3), new(PageState.Unused, 3)), "an unused page has no copy anywhere");
        Assert.True(table.IsLegal(new(PageState.Packed), new(PageState.Busy)));
        Assert.True(table.IsLegal(new(PageState.Busy), new(PageState.Packed)));
        Assert.False(table.IsLegal(new(PageState.Busy, 3), new(PageState.Packed)), "a packed page has no copy anywhere");
        Assert.False(table.IsLegal(new(PageState.Packed), new(PageState.Resident)), "somebody has to own it meanwhile");
        Assert.True(table.IsLegal(new(PageState.Resident, 3), new(PageState.Resident)));
        Assert.False(table.IsLegal(new(PageState.Resident, 3), new(PageState.Evicting, 4)), "two sub-hosts would list the page");
        Assert.False(table.IsLegal(new(PageState.Remote, 3), new(PageState.Fetching, 4)), "the other sub-host does not have it");
        Assert.False(table.IsLegal(new(PageState.Busy), new(PageState.Remote)), "remote, but where?");

        int pair = table.Places.Pair(table, 3, 4);
        Assert.Equal((pair, 3, 4), (table.Places.Pair(table, 4, 3), table.Places.First(pair), table.Places.Second(pair)));
        Assert.True(table.IsLegal(new(PageState.Resident, 3), new(PageState.Evicting, pair)), "to one more");
        Assert.False(table.IsLegal(new(PageState.Resident, pair), new(PageState.Evicting, 3)), "4 would list what is old");
        Assert.False(table.IsLegal(new(PageState.Busy, 3), new(PageState.Resident, pair)), "4 never had it");
        Assert.True(table.IsLegal(new(PageState.Fetching, pair), new(PageState.Remote, 4)), "3 does not have it any more");
        Assert.False(table.IsLegal(new(PageState.Fetching, 3), new(PageState.Remote, 4)));
    }

    [Fact]
    public void An_illegal_move_is_a_bug_and_changes_nothing()
    {
        using var table = new PageTable(10);
        Assert.Throws<InvalidOperationException>(() => table.TryMove(1, new(PageState.Unused), new(PageState.Resident)));
        Assert.Equal(new(PageState.Unused), table[1]);
        Assert.Throws<ArgumentOutOfRangeException>(() => table[10]);
        Assert.Throws<ArgumentOutOfRangeException>(() => table.SetRemote(new PageRange(9, 2), 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => table.SetRemote(new PageRange(1, 1), 31));
    }

    [Fact]
    public void A_move_from_what_the_page_no_longer_is_fails()
    {
        using var table = new PageTable(4);
        table.SetReceived(new(0, 4));
        Assert.True(table.TryMove(2, new(PageState.Resident), new(PageState.Evicting, 1)));
        Assert.False(table.TryMove(2, new(PageState.Resident), new(PageState.Evicting, 1)));
        Assert.False(table.TryMove(2, new(PageState.Resident), new(PageState.Busy)));
    }

    [Fact]
    public void The_counts_are_those_of_the_pages()
    {
        const int Pages = 5000;
        using var table = new PageTable(Pages);
        var random = new Random(3);
        for (int i = 0; i < 2000; i++)
        {
            int first = random.Next(Pages);
            var range = new PageRange(first, random.Next(1, Math.Min(60, Pages - first) + 1));
            switch (random.Next(3))
            {
                case 0: table.SetReceived(range); break;
                case 1: table.SetUnused(range); break;
                default: table.SetRemote(range, random.Next(31)); break;
            }

            long page = random.Next(Pages);
            if (table[page] is { State: PageState.Remote } remote)
            {
                Assert.True(table.TryMove(page, remote, remote.With(PageState.Fetching)));
            }
        }

        foreach (var state in Enum.GetValues<PageState>())
        {
            Assert.Equal(Enumerable.Range(0, Pages).Count(p => table[p].State == state), table.Count(state));
        }

        for (int sub = 0; sub < PageEntry.MaxSubs; sub++)
        {
            Assert.Equal(Enumerable.Range(0, Pages).Count(p => table[p] == new PageEntry(PageState.Remote, sub)), table.RemoteAt(sub));
            Assert.Equal(Enumerable.Range(0, Pages).Count(p => table[p].Sub == sub && table[p].State != PageState.Lost), table.CopiesAt(sub));
        }
    }

    [Fact]
    public void Of_threads_that_want_the_same_page_one_gets_it()
    {
        using var table = new PageTable(20_000);
        table.SetReceived(new(0, table.PageCount));
        int won = 0;
        var threads = Enumerable.Range(0, 4).Select(_ => new Thread(() =>
        {
            for (long page = 0; page < table.PageCount; page++)
            {
                if (table.TryMove(page, new(PageState.Resident), new(PageState.Busy)))
                {
                    Interlocked.Increment(ref won);
                }
            }
        })).ToList();
        threads.ForEach(t => t.Start());
        threads.ForEach(t => t.Join());
        Assert.Equal(table.PageCount, won);
        Assert.Equal(table.PageCount, table.Count(PageState.Busy));
        Assert.Equal(0, table.Count(PageState.Resident));
    }

    [Fact]
    public void The_queue_has_each_page_once_and_gives_the_oldest_first()
    {
        using var queue = new PageQueue(100_000);
        for (int round = 0; round < 2; round++)
        {
            for (long page = 0; page < 50_000; page++)
            {
                queue.Push((page * 7919) % 50_000);
            }
        }

        Assert.Equal(50_000, queue.Count);
        for (long i = 0; i < 50_000; i++)
        {
            Assert.True(queue.TryPop(out long page));
            Assert.Equal((i * 7919) % 50_000, page);
        }

        Assert.False(queue.TryPop(out _));
        queue.Push(5);
        Assert.Equal(1, queue.Count);
    }
}
