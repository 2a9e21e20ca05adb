using System.Collections.Concurrent;
using System.Net;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Paging;

public sealed unsafe class DemandChannelTests
{
    private const string SplitId = "0123456789abcdef0123456789abcdef";
    private const long Pages = 4096;
    private const long Wanted = 77;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    /// <summary>What is wrong with the first answer; the page is asked for again on the next connection, and comes.</summary>
    [Theory]
    [InlineData("says that it is neither here nor missing")]
    [InlineData("is short")]
    [InlineData("is too long")]
    [InlineData("is empty")]
    [InlineData("is of another page")]
    public void A_page_that_was_answered_wrongly_stays_asked_for(string wrong)
    {
        int connections = 0;
        using var listener = new PeerListener(
            new()
            {
                Address = IPAddress.Loopback,
                Port = 0,
                Role = WorkerRole.Sub,
                SplitId = SplitId,
                Pages = Pages,
                Certificate = null,
                Peers = new Dictionary<string, WorkerRole> { ["main"] = WorkerRole.Main },
            },
            (connection, _) =>
            {
                bool first = Interlocked.Increment(ref connections) == 1;
                while (connection.ReadHeader(out var asked))
                {
                    var answer = new byte[1 + PageIndex.PageSize];
                    answer.AsSpan().Fill(5);
                    answer[0] = 1;
                    long page = asked.FirstPage;
                    if (first)
                    {
                        (page, answer) = wrong switch
                        {
                            "says that it is neither here nor missing" => (page, [2]),
                            "is short" => (page, answer[..100]),
                            "is too long" => (page, [.. answer, 0]),
                            "is empty" => (page, []),
                            _ => (page + 1, answer),
                        };
                    }

                    connection.Send(FrameHeader.Of(FrameType.GetDone, new PageRange(page, 1), asked.Sequence), answer);
                    connection.Flush();
                }
            });
        listener.Start();
        var arrivals = new Arrivals();
        using var channel = new DemandChannel(
            new()
            {
                Index = 3,
                Host = "sub3",
                Address = IPAddress.Loopback,
                Port = listener.Port,
                Thumbprint = "",
                Certificate = null,
                SplitId = SplitId,
                Pages = Pages,
            },
            arrivals);
        channel.Start();
        channel.Get(Wanted, forWrite: true);
        channel.Flush();
        Assert.True(SpinWait.SpinUntil(
            () =>
            {
                channel.ReadAnswers();
                return arrivals.Came.Count > 0;
            },
            s_patience));
        Assert.Equal((3, Wanted, true, 5), arrivals.Came.Take());
        Assert.Equal(0, channel.Outstanding);
        Assert.Equal(2, connections);
    }

    private sealed class Arrivals : IPageArrivals
    {
        public BlockingCollection<(int Sub, long Page, bool ForWrite, byte Content)> Came { get; } = [];

        public void Arrived(int sub, long page, bool forWrite, byte* content)
        {
            Assert.Equal(content[0], content[PageIndex.PageSize - 1]);
            Came.Add((sub, page, forWrite, content[0]));
        }

        public void ArrivedEarly(int sub, PageRange range, bool forWrite, byte* content) => Assert.Fail("Nothing was asked for early.");

        public void Missing(int sub, long page) => Assert.Fail("The store has it.");

        public bool IsElsewhere(int sub, long page) => false;

        public void Unanswered(int sub, PageRange range) => Assert.Fail("Nobody else has it.");
    }
}
