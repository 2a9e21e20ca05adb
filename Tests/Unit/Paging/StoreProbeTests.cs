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
    private const string SplitId = "0123456789abcdef0123456789abcdef";
    private const long Pages = 4096;
    private const long Wanted = 77;
    private const int Step = 100;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly BlockingCollection<Request> _requests = [];
    private readonly Arrivals _arrivals = new();
    private readonly PeerListener _listener;

    public StoreProbeTests()
    {
        _listener = new(
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
                while (connection.ReadHeader(out var asked))
                {
                    _requests.Add(new(connection, asked));
                }
            });
        _listener.Start();
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
        channel.Get(Wanted, forWrite: false);
        channel.Flush();
        Request first = Next();
        FallSilent(channel);
        using FrameConnection other = Connect();
        first.Answer(5);
        ReadUntilCame(channel);
        Assert.False(channel.TryMove(other, "It is not silent."));
        channel.Get(Wanted + 1, forWrite: false);
        channel.Flush();
        Assert.Same(first.Connection, Next().Connection);
    }

    /// <summary>Else a worker that hangs, whose host still accepts connections, would never count as away.</summary>
    [Fact]
    public void Going_over_to_another_connection_is_no_sign_of_life()
    {
        using DemandChannel channel = Channel();
        channel.Get(Wanted, forWrite: false);
        channel.Flush();
        Request first = Next();
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
        channel.Get(Wanted, forWrite: false);
        channel.Flush();
        Next();
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
        channel.Get(Wanted + 1, forWrite: false);
        channel.Flush();
        Assert.Same(second.Connection, Next().Connection);
        FallSilent(channel);
        Assert.True(channel.TryMove(third, "It is silent again."));
        Assert.NotSame(second.Connection, Next().Connection);
    }

    /// <summary>A connection that nobody wants any more would be in the way of those that come.</summary>
    [Fact]
    public void What_has_ended_by_itself_takes_no_other_connection_and_connects()
    {
        using DemandChannel channel = Channel();
        channel.Get(Wanted, forWrite: false);
        channel.Flush();
        Request first = Next();
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

    private void ReadUntilCame(DemandChannel channel) => Assert.True(SpinWait.SpinUntil(
        () =>
        {
            channel.ReadAnswers();
            return _arrivals.Came.Count > 0;
        },
        s_patience));

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
        IPAddress.Loopback, _listener.Port, "", null, new(SplitId, WorkerRole.Main, ConnectionPurpose.Demand, Pages), s_patience, tls: false, out _);

    private RemoteStoreOptions Options() => new()
    {
        Index = 3,
        Host = "sub3",
        Address = IPAddress.Loopback,
        Port = _listener.Port,
        Thumbprint = "",
        Certificate = null,
        SplitId = SplitId,
        Pages = Pages,
        AnswerTimeout = TimeSpan.FromHours(1),
    };

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

    private sealed class Arrivals : IPageArrivals
    {
        public BlockingCollection<(int Sub, long Page, bool ForWrite, byte Content)> Came { get; } = [];

        public void Arrived(int sub, long page, bool forWrite, byte* content) => Came.Add((sub, page, forWrite, content[0]));

        public void ArrivedEarly(int sub, PageRange range, bool forWrite, byte* content) => Assert.Fail("Nothing was asked for early.");

        public void Missing(int sub, long page) => Assert.Fail("The store has it.");

        public bool IsElsewhere(int sub, long page) => false;

        public void Unanswered(int sub, PageRange range) => Assert.Fail("Nobody else has it.");
    }
}
