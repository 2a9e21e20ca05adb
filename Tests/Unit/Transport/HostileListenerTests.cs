using System.Net;
using System.Net.Sockets;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Transport;

/// <summary>
/// A peer with the right certificate that was connected to and answers anything: whoever connected gets an error, never takes it for what was
/// due, and never waits for ever. The other way round: <see cref="HostilePeerTests"/>.
/// </summary>
public sealed unsafe class HostileListenerTests : IDisposable
{
    private const long Pages = 64;

    private readonly string _directory = Directory.CreateDirectory($"/dev/shm/fctrans-hostile-listener-{Guid.NewGuid():N}").FullName;
    private readonly GuestRam _ram;

    public HostileListenerTests()
    {
        string path = Path.Combine(_directory, "ram");
        File.WriteAllBytes(path, new byte[Pages * PageIndex.PageSize]);
        _ram = new GuestRam([new RamBlock("ram0", 0, Pages, default, SparseFile.Open(path, write: false), path)], []);
    }

    public void Dispose()
    {
        _ram.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    public static TheoryData<string> Names() => [.. Answers().Select(a => a.Name)];

    [Theory]
    [MemberData(nameof(Names))]
    public void Each_answer_is_an_error_and_nothing_more(string name)
    {
        byte[] answer = Answers().Single(a => a.Name == name).Bytes;
        foreach (var end in Ends())
        {
            var failure = Record.Exception(() => end(answer));
            Assert.True(failure is MigrationException or IOException, $"{failure?.ToString() ?? "taken for an answer"}");
        }
    }

    [Fact]
    public void Whatever_is_answered_ends_the_connection_at_the_most()
    {
        var random = new Random(1729);
        byte[][] answers = [.. Answers().Where(a => a.Bytes.Length is > 0 and < 10_000).Select(a => a.Bytes)];
        for (int turn = 0; turn < 500; turn++)
        {
            byte[] answer = [.. answers[random.Next(answers.Length)], .. answers[random.Next(answers.Length)]];
            for (int i = random.Next(1, 4); i > 0; i--)
            {
                answer[random.Next(Math.Min(answer.Length, 2 * FrameHeader.Size))] = (byte)random.Next(256);
            }

            foreach (var end in Ends())
            {
                var failure = Record.Exception(() => end(answer));
                Assert.True(failure is null or MigrationException or IOException, $"{failure}");
            }
        }
    }

    /// <summary>What each end is told when all is well: that the tests above fail for what they are about, and not for the stream.</summary>
    [Fact]
    public void What_is_due_is_taken()
    {
        Lane(Frame(FrameHeader.Of(FrameType.BarrierDone, 1), []));
        Reader(Frame(FrameHeader.Of(FrameType.GetDone, new PageRange(10, 2), 1), [1, 0, .. new byte[PageIndex.PageSize]]));
    }

    private Action<byte[]>[] Ends() => [Control, Lane, Reader];

    private static IEnumerable<(string Name, byte[] Bytes)> Answers()
    {
        var ten = new PageRange(10, 2);
        yield return ("nothing", []);
        yield return ("noise", [.. Enumerable.Range(0, 100).Select(i => (byte)(i * 37))]);
        yield return ("half a header", Frame(FrameHeader.Of(FrameType.BarrierDone, 1), [])[..20]);
        yield return ("half a payload", Frame(FrameHeader.Of(FrameType.GetDone, ten, 1), [1, 1, .. new byte[2 * PageIndex.PageSize]])[..5000]);
        byte[] reserved = Frame(FrameHeader.Of(FrameType.BarrierDone, 1), []);
        reserved[6] = 1;
        yield return ("reserved bytes", reserved);
        yield return ("an endless payload", Header(FrameHeader.Of(FrameType.Control) with { PayloadBytes = int.MaxValue }));
        yield return ("a negative payload", Header(FrameHeader.Of(FrameType.GetDone, ten, 1) with { PayloadBytes = -1 }));
        yield return ("a payload that is too long", Frame(FrameHeader.Of(FrameType.Control), new byte[FrameHeader.MaxPayloadBytes + 1]));
        yield return ("pages that there are not", Frame(FrameHeader.Of(FrameType.GetDone, new PageRange(Pages, 2), 1), [0, 0]));
        yield return ("a Hello again", Frame(FrameHeader.Of(FrameType.Hello), new byte[PeerHello.Size]));
        yield return ("pages", Frame(FrameHeader.Of(FrameType.Pages, new PageRange(0, 1)), new byte[PageIndex.PageSize]));
        yield return ("a barrier", Frame(FrameHeader.Of(FrameType.Barrier, 1), []));
        yield return ("an unknown type", Frame(FrameHeader.Of((FrameType)200), []));
        yield return ("a commit", Frame(FrameHeader.Of(FrameType.Control), [(byte)ControlCode.Commit]));
        yield return ("an empty control message", Frame(FrameHeader.Of(FrameType.Control), []));
        yield return ("an unknown control message", Frame(FrameHeader.Of(FrameType.Control), [250]));
        yield return ("a failure", Frame(FrameHeader.Of(FrameType.Control), [(byte)ControlCode.Failed, 0xff, 0xfe]));
        yield return ("a long error", Frame(FrameHeader.Of(FrameType.Error), new byte[FrameHeader.MaxPayloadBytes]));
        yield return ("another barrier's answer", Frame(FrameHeader.Of(FrameType.BarrierDone, 77), []));
        yield return ("a barrier's answer with pages", Frame(FrameHeader.Of(FrameType.BarrierDone, ten, 1), []));
        yield return ("other pages", Frame(FrameHeader.Of(FrameType.GetDone, new PageRange(11, 2), 1), [0, 0]));
        yield return ("fewer pages", Frame(FrameHeader.Of(FrameType.GetDone, new PageRange(10, 1), 1), [0]));
        yield return ("an answer to another request", Frame(FrameHeader.Of(FrameType.GetDone, ten, 9), [0, 0]));
        yield return ("neither here nor not", Frame(FrameHeader.Of(FrameType.GetDone, ten, 1), [2, 0, .. new byte[PageIndex.PageSize]]));
        yield return ("here without content", Frame(FrameHeader.Of(FrameType.GetDone, ten, 1), [1, 1, .. new byte[PageIndex.PageSize]]));
        yield return ("a list that nobody asked for", Frame(FrameHeader.Of(FrameType.Held, ten), []));
    }

    private static byte[] Header(FrameHeader header)
    {
        byte[] bytes = new byte[FrameHeader.Size];
        header.Write(bytes);
        return bytes;
    }

    private static byte[] Frame(FrameHeader header, byte[] payload) => [.. Header(header with { PayloadBytes = payload.Length }), .. payload];

    private static void Control(byte[] answer)
    {
        using var channel = new ControlChannel(Connector(answer, ConnectionPurpose.Control));
        channel.SendLocated(new PageRange(0, 1), 0, CancellationToken.None);
        channel.Barrier(CancellationToken.None);
        channel.WaitFor(ControlCode.Ready, CancellationToken.None);
    }

    private void Lane(byte[] answer)
    {
        var connect = Connector(answer, ConnectionPurpose.Bulk);
        using var sender = new BulkSender("main", new SendOptions(_ram, Reduce: false, null), (_, limit, cancel) => connect(limit, cancel), lanes: 1);
        sender.Pages(new PageRange(0, 16));
        sender.Barrier();
        sender.WaitBarrier(CancellationToken.None);
    }

    private static void Reader(byte[] answer)
    {
        var connect = Connector(answer, ConnectionPurpose.Demand);
        using var session = new SourceReader(_ => connect(TimeSpan.Zero, default)).Open();
        byte[] buffer = GC.AllocateArray<byte>(FrameHeader.MaxPayloadBytes, pinned: true);
        fixed (byte* bytes = buffer)
        {
            session.Read(new IPEndPoint(IPAddress.Loopback, 1), new PageRange(10, 2), bytes);
        }
    }

    /// <summary>A connection that has brought the answer, and then the end; there is no other.</summary>
    private static Func<TimeSpan, CancellationToken, FrameConnection> Connector(byte[] answer, ConnectionPurpose purpose)
    {
        int connections = 0;
        return (_, _) =>
        {
            if (connections++ > 0)
            {
                throw new PeerConnectionException("It answers no more.", final: true);
            }

            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
            socket.Connect(IPAddress.Loopback, 9);
            var connection = new FrameConnection(new RecordedStream(answer), socket, Pages, ConnectionPurpose.None, connector: true);
            connection.Establish(Pages, purpose);
            return connection;
        };
    }
}
