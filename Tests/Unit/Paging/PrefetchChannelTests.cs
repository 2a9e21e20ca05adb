using System.Collections.Concurrent;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Transport;
using Xunit;

namespace FCtrans.Unit.Tests.Paging;

public sealed unsafe class PrefetchChannelTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    /// <summary>Although nobody else has the pages: who has reached one of them asks by the demand channel, and does not wait for all the others.</summary>
    [Fact]
    public void What_a_cut_left_unanswered_is_given_back_and_not_asked_for_again()
    {
        using var asked = new BlockingCollection<(FrameConnection Connection, PageRange Range)>();
        using var listener = FakeStore.Listen((connection, _) =>
        {
            while (connection.ReadHeader(out var frame))
            {
                asked.Add((connection, frame.Range));
            }
        });
        var arrivals = new Arrivals();
        using var channel = Channel(listener.Port, arrivals);
        var lost = new PageRange(100, 16);
        channel.Get(lost, forWrite: false);
        channel.Flush();
        Assert.True(asked.TryTake(out var first, s_patience));
        Assert.Equal(lost, first.Range);
        first.Connection.Abort();

        Assert.True(arrivals.GivenBack.TryTake(out var back, s_patience));
        Assert.Equal((3, lost), back);
        Assert.Equal(0, channel.Outstanding);
        WaitUntilReady(channel);
        channel.Get(new(7, 1), forWrite: false);
        channel.Flush();
        Assert.True(asked.TryTake(out var second, s_patience));
        Assert.Equal(new PageRange(7, 1), second.Range);
    }

    /// <summary>A request that is made just as the connection ends is on no connection, and nobody would answer it.</summary>
    [Fact]
    public void What_is_asked_for_while_the_store_is_away_goes_out_once_when_it_is_back_or_is_given_back()
    {
        using var asked = new BlockingCollection<PageRange>();
        var requests = new List<PageRange>();
        var arrivals = new Arrivals();
        int port;
        PrefetchChannel channel;
        using (var listener = FakeStore.Listen((connection, _) => connection.ReadHeader(out FrameHeader _)))
        {
            port = listener.Port;
            channel = Channel(port, arrivals);
        }

        using (channel)
        {
            Assert.True(SpinWait.SpinUntil(() => !channel.IsConnected, s_patience));
            channel.Get(new(20, 2), forWrite: false);
            channel.Get(new(30, 3), forWrite: false);
            using (FakeStore.Listen(
                (connection, _) =>
                {
                    while (connection.ReadHeader(out var frame))
                    {
                        asked.Add(frame.Range);
                    }
                },
                port))
            {
                WaitUntilReady(channel);
                // On the same connection: it comes behind them.
                channel.Get(new(40, 1), forWrite: false);
                channel.Flush();
                PageRange last;
                do
                {
                    Assert.True(asked.TryTake(out last, s_patience));
                    requests.Add(last);
                }
                while (last.First != 40);
            }

            Assert.True(SpinWait.SpinUntil(() => channel.Outstanding == 0, s_patience));
        }

        Assert.Equal(requests.Count, requests.Distinct().Count());
        Assert.Equal([new(20, 2), new(30, 3), new(40, 1)], arrivals.GivenBack.Select(b => b.Range).Order(Comparer<PageRange>.Create((a, b) => a.First.CompareTo(b.First))));
    }

    /// <summary>Whoever has reached a page that is under way waits for all that was asked for before it.</summary>
    [Fact]
    public void No_more_is_under_way_than_a_guest_that_waits_for_a_page_of_it_can_bear()
    {
        using var listener = FakeStore.Listen((connection, _) =>
        {
            while (connection.ReadHeader(out FrameHeader _))
            {
            }
        });
        using var channel = Channel(listener.Port, new Arrivals());
        int pages = 0;
        foreach (bool othersWait in (bool[])[true, false])
        {
            while (channel.Takes(0, othersWait))
            {
                // As Prefetcher gathers them.
                int count = 1;
                while (count < PrefetchChannel.MaxPages && channel.Takes(count, othersWait))
                {
                    count++;
                }

                channel.Get(new(pages, count), forWrite: false);
                pages += count;
            }

            Assert.Equal(othersWait ? 64 : 256, pages);
            Assert.Equal(pages, channel.Outstanding);
        }
    }

    private static PrefetchChannel Channel(int port, Arrivals arrivals)
    {
        var channel = new PrefetchChannel(FakeStore.Options(port), arrivals);
        channel.Start();
        WaitUntilReady(channel);
        return channel;
    }

    private static void WaitUntilReady(PrefetchChannel channel) => Assert.True(SpinWait.SpinUntil(() => channel.IsReady, s_patience));

    private sealed class Arrivals : IPageArrivals
    {
        public BlockingCollection<(int Sub, PageRange Range)> GivenBack { get; } = [];

        public void Arrived(int sub, long page, bool forWrite, byte* content) => Assert.Fail("Nothing was answered.");

        public void ArrivedEarly(int sub, PageRange range, bool forWrite, byte* content) => Assert.Fail("Nothing was answered.");

        public void Missing(int sub, long page) => Assert.Fail("Nothing was answered.");

        public bool IsElsewhere(int sub, long page) => false;

        public void Unanswered(int sub, PageRange range) => GivenBack.Add((sub, range));
    }
}
