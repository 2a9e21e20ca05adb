using System.Collections.Concurrent;
using System.Net;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Paging;

/// <summary>A store that owes pages and says nothing. How long it has been silent is what the test tells the channels, step by step.</summary>
public sealed unsafe class StoreProbeTests : IDisposable
{
    private const long Wanted = 77;
    private const int Step = 100;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly BlockingCollection<Request> _requests = [];
    private readonly DemandedArrivals _arrivals = new();
    private readonly PeerListener _listener;

    public StoreProbeTests()
    {
        _listener = FakeStore.Listen((connection, _) =>
        {
            while (connection.ReadHeader(out var asked))
            {
                _requests.Add(new(connection, asked));
            }
        });
    }

    [Fact]
    public void What_it_owes_is_asked_for_on_another_connection_and_the_first_one_is_over()
    {
        using var store = new RemoteStore(Options());
        store.Attach(_arrivals);
        store.Start();
        store.Demand.Get(Wanted, forWrite: true);
        store.Demand.Flush();
        Request first = Next();
        Assert.True(SpinWait.SpinUntil(() => store.IsConnected, s_patience));
        for (int passed = 0; passed <= (int)Options().ProbeAfter.TotalMilliseconds; passed += Step)
        {
            store.LookForAnswers(Step);
        }

        Request second = Next();
        Assert.NotSame(first.Connection, second.Connection);
        Assert.Equal(first.Frame, second.Frame);
        // Its content would be another one: nobody may take it any more.
        TryAnswer(first, 9);
        second.Answer(5);
        ReadUntilCame(store.Demand);
        Assert.Equal((3, Wanted, true, 5), _arrivals.Came.Take());
        Assert.Equal(0, store.Demand.Outstanding);
        store.Demand.ReadAnswers();
        Assert.Empty(_arrivals.Came);
    }

    [Fact]
    public void What_has_answered_meanwhile_keeps_its_connection()
    {
        using DemandChannel channel = Channel();
        Request first = Ask(channel, Wanted);
        FallSilent(channel);
        using FrameConnection other = Connect();
        first.Answer(5);
        ReadUntilCame(channel);
        Assert.False(channel.TryMove(other, "It is not silent."));
        Assert.Same(first.Connection, Ask(channel, Wanted + 1).Connection);
    }

    /// <summary>Else a worker that hangs, whose host still accepts connections, would never count as away.</summary>
    [Fact]
    public void Going_over_to_another_connection_is_no_sign_of_life()
    {
        using DemandChannel channel = Channel();
        Request first = Ask(channel, Wanted);
        long silence = FallSilent(channel);
        Assert.True(channel.TryMove(Connect(), "It is silent."));
        Request second = Next();
        Assert.NotSame(first.Connection, second.Connection);
        // The connection is there before anything is sent on it.
        Assert.Equal(silence + Step, channel.Look(Step));
        Assert.Equal(silence + (2 * Step), channel.Look(Step));
        second.Answer(5);
        ReadUntilCame(channel);
        Assert.Equal(0, channel.Look(Step));
    }

    /// <summary>Asked anew again and again, one that takes longer than that would never answer.</summary>
    [Fact]
    public void A_store_that_takes_its_time_is_not_left_again_before_it_has_answered()
    {
        using DemandChannel channel = Channel();
        Ask(channel, Wanted);
        FallSilent(channel);
        Assert.True(channel.TryMove(Connect(), "It is silent."));
        Request second = Next();
        for (int look = 0; look < 20; look++)
        {
            channel.Look(Step);
        }

        using FrameConnection third = Connect();
        Assert.False(channel.TryMove(third, "It is silent."));
        second.Answer(5);
        ReadUntilCame(channel);
        Assert.Same(second.Connection, Ask(channel, Wanted + 1).Connection);
        FallSilent(channel);
        Assert.True(channel.TryMove(third, "It is silent again."));
        Assert.NotSame(second.Connection, Next().Connection);
    }

    /// <summary>A connection that nobody wants any more would be in the way of those that come.</summary>
    [Fact]
    public void What_has_ended_by_itself_takes_no_other_connection_and_connects()
    {
        using DemandChannel channel = Channel();
        Request first = Ask(channel, Wanted);
        FallSilent(channel);
        using FrameConnection other = Connect();
        first.Connection.Abort();
        Request second = Next();
        Assert.False(channel.TryMove(other, "It is another one."));
        second.Answer(5);
        ReadUntilCame(channel);
        Assert.Equal(5, _arrivals.Came.Take().Content);
    }

    public void Dispose()
    {
        _listener.Dispose();
        _requests.Dispose();
    }

    private static long FallSilent(StoreChannel channel)
    {
        Assert.True(SpinWait.SpinUntil(() => channel.IsOwed, s_patience));
        while (!channel.IsSilent)
        {
            channel.Look(Step);
        }

        return channel.Look(Step);
    }

    private static void TryAnswer(Request request, byte content)
    {
        try
        {
            request.Answer(content);
        }
        catch (IOException)
        {
            // The store has already seen that it is over.
        }
    }

    private void ReadUntilCame(DemandChannel channel) => _arrivals.ReadFrom(channel, s_patience);

    private Request Ask(DemandChannel channel, long page)
    {
        channel.Get(page, forWrite: false);
        channel.Flush();
        return Next();
    }

    private Request Next()
    {
        Assert.True(_requests.TryTake(out var request, s_patience));
        return request;
    }

    private DemandChannel Channel()
    {
        var channel = new DemandChannel(Options(), _arrivals);
        channel.Start();
        return channel;
    }

    private FrameConnection Connect() => PeerConnector.Connect(
        IPAddress.Loopback, _listener.Port, "", null, new(FakeStore.SplitId, WorkerRole.Main, ConnectionPurpose.Demand, FakeStore.Pages), s_patience, tls: false, out _);

    private RemoteStoreOptions Options() => FakeStore.Options(_listener.Port) with { AnswerTimeout = TimeSpan.FromHours(1) };

    private sealed record Request(FrameConnection Connection, FrameHeader Frame)
    {
        public void Answer(byte content)
        {
            byte[] answer = new byte[1 + PageIndex.PageSize];
            answer.AsSpan().Fill(content);
            answer[0] = 1;
            Connection.Send(FrameHeader.Of(FrameType.GetDone, Frame.Range, Frame.Sequence), answer);
            Connection.Flush();
        }
    }
}
