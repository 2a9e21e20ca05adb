using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Transport;

public sealed class PeerConnectionTests : IDisposable
{
    private const string SplitId = "0123456789abcdef0123456789abcdef";
    private const long Pages = 4096;

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("fctrans-peer-");
    private readonly WorkerCertificate _sub;
    private readonly WorkerCertificate _main;

    public PeerConnectionTests()
    {
        _sub = WorkerCertificate.Create(_directory.CreateSubdirectory("sub").FullName);
        _main = WorkerCertificate.Create(_directory.CreateSubdirectory("main").FullName);
    }

    public void Dispose() => _directory.Delete(recursive: true);

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Frames_arrive_as_they_were_sent(bool tls)
    {
        var received = new BlockingCollection<(FrameHeader Header, byte[] Payload)>();
        using var listener = Listen(tls, (connection, hello) =>
        {
            Assert.Equal(WorkerRole.Main, hello.Role);
            byte[] buffer = new byte[FrameHeader.MaxPayloadBytes];
            while (connection.Read(out var header, buffer))
            {
                received.Add((header, buffer[..header.PayloadBytes]));
                if (header.Type == FrameType.Barrier)
                {
                    connection.Send(FrameHeader.Of(FrameType.BarrierDone, header.Sequence));
                    connection.Flush();
                }
            }
        });
        using var client = Connect(listener.Port, tls);
        var random = new Random(1);
        var sent = new List<(FrameHeader, byte[])>();
        foreach (int count in (int[])[1, 256, 3, 31, 32, 33, 17, 1, 1, 200])
        {
            byte[] content = new byte[count * 4096];
            random.NextBytes(content);
            var header = FrameHeader.Of(FrameType.Pages, new PageRange(random.Next(0, 4096 - count), count));
            client.Send(header, content);
            sent.Add((header with { PayloadBytes = content.Length }, content));
        }

        client.Send(FrameHeader.Of(FrameType.Barrier, 77));
        client.Flush();
        Assert.True(client.Read(out var answer, []));
        Assert.Equal(FrameType.BarrierDone, answer.Type);
        Assert.Equal(77u, answer.Sequence);
        foreach (var (header, content) in sent)
        {
            Assert.True(received.TryTake(out var got, TimeSpan.FromSeconds(10)));
            Assert.Equal(header, got.Header);
            Assert.True(content.AsSpan().SequenceEqual(got.Payload));
        }

        Assert.Equal(sent.Sum(s => 32L + s.Item2.Length) + 32 + 32 + PeerHello.Size, client.BytesSent);
    }

    /// <summary>The fault thread reads so: it takes what is there and never waits for one peer.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Frames_can_be_taken_as_they_come_without_waiting(bool tls)
    {
        const int Count = 300;
        using var listener = Listen(tls, (connection, _) =>
        {
            var payload = new byte[1 + 4096];
            payload[0] = 1;
            while (connection.ReadHeader(out var header) && header.Sequence != Count)
            {
                payload.AsSpan(1).Fill((byte)header.Sequence);
                connection.Send(header with { Type = FrameType.GetDone }, payload);
                if (!connection.HasBufferedInput)
                {
                    connection.Flush();
                }
            }
        });
        using var client = Connect(listener.Port, tls, ConnectionPurpose.Demand);
        Assert.False(client.ReadAvailable());
        for (uint i = 0; i < Count; i++)
        {
            client.Send(FrameHeader.Of(FrameType.Get, new PageRange(i, 1), i));
        }

        client.Flush();
        uint next = 0;
        WaitFor(() =>
        {
            while (client.ReadAvailable())
            {
                while (client.TryReadFrame(out var header, out var payload))
                {
                    Assert.Equal((FrameType.GetDone, next, 4097), (header.Type, header.Sequence, payload.Length));
                    Assert.Equal(-1, payload[1..].IndexOfAnyExcept((byte)next));
                    next++;
                }
            }

            return next == Count;
        });
        Assert.Equal(Count * (32L + 4097) + 32 + PeerHello.Size, client.BytesReceived);
        client.Send(FrameHeader.Of(FrameType.Get, new PageRange(0, 1), Count));
        client.Flush();
        WaitFor(() =>
        {
            try
            {
                return client.ReadAvailable();
            }
            catch (IOException)
            {
                return true;
            }
        });
    }

    [Fact]
    public void Sending_and_reading_do_not_allocate()
    {
        using var listener = Listen(tls: false, (connection, _) =>
        {
            byte[] buffer = new byte[FrameHeader.MaxPayloadBytes];
            while (connection.Read(out var header, buffer))
            {
                if (header.Type == FrameType.Barrier)
                {
                    connection.Send(FrameHeader.Of(FrameType.BarrierDone, header.Sequence));
                    connection.Flush();
                }
            }
        });
        using var client = Connect(listener.Port, tls: false);
        byte[] page = new byte[4096];
        void Turn()
        {
            client.Send(FrameHeader.Of(FrameType.Pages, new PageRange(1, 1)), page);
            client.Send(FrameHeader.Of(FrameType.Barrier, 1));
            client.Flush();
            client.Read(out _, []);
        }

        for (int i = 0; i < 200; i++)
        {
            Turn();
        }

        Assert.Equal(0, Allocations.Of(() =>
        {
            for (int i = 0; i < 1000; i++)
            {
                Turn();
            }
        }));
    }

    [Fact]
    public void A_certificate_that_was_not_pinned_is_refused_by_both_sides()
    {
        using var listener = Listen(tls: true, (_, _) => { });
        using var stranger = WorkerCertificate.Create(_directory.CreateSubdirectory("stranger").FullName);
        Assert.ThrowsAny<IOException>(() =>
        {
            // With TLS 1.3 a client learns of its refusal only when it reads, here its Hello's answer.
            using var c = PeerConnector.Connect(IPAddress.Loopback, listener.Port, _sub.Thumbprint, stranger, Hello(), TimeSpan.FromSeconds(1), true, out _);
        });
        WaitFor(() => listener.Refused >= 1);
        Assert.Equal(0, listener.Accepted);

        var e = Assert.Throws<PeerConnectionException>(() =>
            PeerConnector.Connect(IPAddress.Loopback, listener.Port, stranger.Thumbprint, _main, Hello(), TimeSpan.FromSeconds(5), true, out _));
        Assert.True(e.IsRefused);
        Assert.Equal(0, listener.Accepted);
    }

    [Theory]
    [InlineData("other id", true)]
    [InlineData("other id", false)]
    [InlineData("other size", true)]
    [InlineData("role it has not", true)]
    [InlineData("purpose it may not", true)]
    public void A_hello_that_does_not_fit_is_refused_with_the_reason(string what, bool tls)
    {
        using var listener = Listen(tls, (_, _) => { }, peer: what == "purpose it may not" ? WorkerRole.Source : WorkerRole.Main);
        var hello = what switch
        {
            "other id" => Hello() with { SplitId = new string('f', 32) },
            "other size" => Hello() with { Pages = Pages + 1 },
            "role it has not" => Hello() with { Role = WorkerRole.Source },
            _ => Hello() with { Role = WorkerRole.Source, Purpose = ConnectionPurpose.Demand },
        };
        var e = Assert.Throws<PeerConnectionException>(() =>
            PeerConnector.Connect(IPAddress.Loopback, listener.Port, _sub.Thumbprint, _main, hello, TimeSpan.FromSeconds(5), tls, out _));
        Assert.True(e.IsRefused);
        WaitFor(() => listener.Refused == 1);
        Assert.Equal(0, listener.Accepted);
        Assert.NotNull(listener.LastRefusal);
    }

    [Fact]
    public void A_stranger_who_says_nothing_is_dropped_and_does_not_keep_peers_out()
    {
        using var listener = Listen(tls: true, (c, hello) => c.Read(out _, []), handshake: TimeSpan.FromMilliseconds(300), handshakes: 4);
        var strangers = new List<Socket>();
        for (int i = 0; i < 20; i++)
        {
            var socket = new Socket(SocketType.Stream, ProtocolType.Tcp);
            socket.Connect(IPAddress.Loopback, listener.Port);
            strangers.Add(socket);
        }

        WaitFor(() => listener.Refused >= 20);
        using var client = Connect(listener.Port, tls: true);
        WaitFor(() => listener.Accepted == 1);
        strangers.ForEach(s => s.Dispose());
    }

    [Fact]
    public void As_many_strangers_as_there_may_be_do_not_keep_a_peer_out_for_as_long_as_they_may_take()
    {
        using var listener = Listen(tls: true, (c, hello) => c.Read(out _, []), handshake: TimeSpan.FromHours(1), handshakes: 4);
        var strangers = new List<Socket>();
        for (int i = 0; i < 6; i++)
        {
            var socket = new Socket(SocketType.Stream, ProtocolType.Tcp);
            socket.Connect(IPAddress.Loopback, listener.Port);
            strangers.Add(socket);
        }

        using var client = Connect(listener.Port, tls: true);
        WaitFor(() => listener.Accepted == 1);
        // Room was made for two of them and for the peer: the three oldest went.
        WaitFor(() => listener.Refused == 3);
        strangers.ForEach(s => s.Dispose());
    }

    [Fact]
    public void A_peer_has_no_more_connections_than_it_may_and_another_when_one_has_ended()
    {
        using var listener = Listen(tls: false, (c, hello) => c.Read(out _, []), connections: 2);
        using var first = Connect(listener.Port, tls: false, ConnectionPurpose.Demand);
        using (Connect(listener.Port, tls: false, ConnectionPurpose.Demand))
        {
            var e = Assert.Throws<PeerConnectionException>(() => PeerConnector.Connect(
                IPAddress.Loopback, listener.Port, "", null, Hello() with { Purpose = ConnectionPurpose.Demand }, TimeSpan.Zero, tls: false, out _));
            Assert.False(e.IsRefused);
            Assert.Contains("2 connections already", listener.LastRefusal, StringComparison.Ordinal);
        }

        WaitFor(() => listener.Live == 1);
        using var again = Connect(listener.Port, tls: false, ConnectionPurpose.Demand);
        WaitFor(() => listener.Live == 2);
    }

    [Fact]
    public void Connecting_waits_for_a_worker_that_is_still_starting_and_gives_up_in_time()
    {
        int port;
        using (var first = Listen(tls: true, (_, _) => { }))
        {
            port = first.Port;
        }

        var e = Assert.Throws<PeerConnectionException>(() =>
            PeerConnector.Connect(IPAddress.Loopback, port, _sub.Thumbprint, _main, Hello(), TimeSpan.FromMilliseconds(300), true, out _));
        Assert.False(e.IsRefused);

        FrameConnection? connected = null;
        var thread = new Thread(() => connected =
            PeerConnector.Connect(IPAddress.Loopback, port, _sub.Thumbprint, _main, Hello(), TimeSpan.FromSeconds(20), true, out _));
        thread.Start();
        using var second = Listen(tls: true, (c, hello) => c.Read(out _, []), port: port);
        Assert.True(thread.Join(TimeSpan.FromSeconds(20)));
        Assert.NotNull(connected);
        connected.Dispose();
    }

    [Fact]
    public void Noise_after_the_hello_ends_the_connection_and_nothing_else()
    {
        using var listener = Listen(tls: false, (c, hello) => c.Read(out _, new byte[FrameHeader.MaxPayloadBytes]));
        var random = new Random(5);
        for (int i = 0; i < 50; i++)
        {
            using var socket = new Socket(SocketType.Stream, ProtocolType.Tcp);
            socket.Connect(IPAddress.Loopback, listener.Port);
            byte[] noise = new byte[random.Next(1, 5000)];
            random.NextBytes(noise);
            if (i % 2 == 0 && noise.Length >= 32 + PeerHello.Size)
            {
                new FrameHeader(FrameType.Hello, 0, PeerHello.Size, 0, 0, 0).Write(noise);
                Hello().Write(noise.AsSpan(32));
            }

            socket.Send(noise);
        }

        using var client = Connect(listener.Port, tls: false);
        Assert.True(listener.Accepted >= 1);
    }

    [Fact]
    public void The_key_is_readable_by_its_owner_only_and_survives_a_restart()
    {
        string file = Path.Combine(_directory.FullName, "sub", "key.pem");
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, new FileInfo(file).UnixFileMode);
        using var again = WorkerCertificate.LoadOrCreate(Path.Combine(_directory.FullName, "sub"));
        Assert.Equal(_sub.Thumbprint, again.Thumbprint);
        Assert.Matches("^[0-9A-F]{64}$", again.Thumbprint);
    }

    private static PeerHello Hello() => new(SplitId, WorkerRole.Main, ConnectionPurpose.Bulk, Pages);

    private PeerListener Listen(
        bool tls, Action<FrameConnection, PeerHello> serve, int port = 0, TimeSpan? handshake = null, int handshakes = 16,
        int connections = 256, WorkerRole peer = WorkerRole.Main)
    {
        var listener = new PeerListener(
            new()
            {
                Address = IPAddress.Loopback,
                Port = port,
                Role = WorkerRole.Sub,
                SplitId = SplitId,
                Pages = Pages,
                Certificate = tls ? _sub : null,
                Peers = new Dictionary<string, WorkerRole> { [_main.Thumbprint.ToLowerInvariant()] = peer },
                HandshakeTimeout = handshake ?? TimeSpan.FromSeconds(10),
                MaxHandshakes = handshakes,
                MaxConnections = connections,
            },
            serve);
        listener.Start();
        return listener;
    }

    private FrameConnection Connect(int port, bool tls, ConnectionPurpose purpose = ConnectionPurpose.Bulk) =>
        PeerConnector.Connect(
            IPAddress.Loopback, port, _sub.Thumbprint, _main, Hello() with { Purpose = purpose }, TimeSpan.FromSeconds(10), tls, out _);

    private static void WaitFor(Func<bool> state)
    {
        Assert.True(SpinWait.SpinUntil(state, TimeSpan.FromSeconds(10)), "the state did not come within 10 s");
    }
}
