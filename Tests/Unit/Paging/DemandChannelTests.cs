using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Transport;
using Xunit;

namespace FCtrans.Unit.Tests.Paging;

public sealed class DemandChannelTests
{
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
        using var listener = FakeStore.Listen((connection, _) =>
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
        var arrivals = new DemandedArrivals();
        using var channel = new DemandChannel(FakeStore.Options(listener.Port), arrivals);
        channel.Start();
        channel.Get(Wanted, forWrite: true);
        channel.Flush();
        arrivals.ReadFrom(channel, s_patience);
        Assert.Equal((3, Wanted, true, 5), arrivals.Came.Take());
        Assert.Equal(0, channel.Outstanding);
        Assert.Equal(2, connections);
    }
}
