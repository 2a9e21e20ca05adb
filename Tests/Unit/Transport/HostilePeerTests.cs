using System.Net;
using System.Net.Sockets;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Transport;

/// <summary>
/// A peer with the right certificate that sends anything, to each end that reads: whatever it is, the connection ends with an error at the
/// most. Corpus/ holds what was found or thought of, one stream of frames a file, named by whether it is to pass, and for which purpose;
/// add what breaks something. Each is also changed at random (with a fixed seed) many times.
/// </summary>
public sealed unsafe class HostilePeerTests : IDisposable
{
    private const long Pages = 64;
    private const int Subs = 2;

    private readonly string _directory = Directory.CreateDirectory($"/dev/shm/fctrans-hostile-{Guid.NewGuid():N}").FullName;

    public static TheoryData<string> Corpus() => [.. Names()];

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Theory]
    [MemberData(nameof(Corpus))]
    public void Each_of_the_corpus_passes_or_is_refused_as_its_name_says(string name)
    {
        byte[] input = Read(name);
        foreach (var end in EndsFor(name))
        {
            var failure = Serve(end, input);
            Assert.True(failure is null == name.StartsWith("ok-", StringComparison.Ordinal), $"{end.Purpose}: {failure?.ToString() ?? "accepted"}");
        }
    }

    [Fact]
    public void Whatever_is_sent_ends_the_connection_at_the_most()
    {
        var random = new Random(1729);
        string[] names = Names();
        byte[][] inputs = [.. names.Select(name => Read(name))];
        for (int turn = 0; turn < 4000; turn++)
        {
            int which = random.Next(names.Length);
            // What was meant for one purpose comes to another now and then.
            int meantFor = random.Next(8) == 0 ? random.Next(names.Length) : which;
            byte[] input = Change(random, inputs[which], inputs[random.Next(inputs.Length)]);
            foreach (var end in EndsFor(names[meantFor]))
            {
                // It throws where the failure is none that a connection may have.
                Serve(end, input);
            }
        }
    }

    private static string[] Names() =>
        [.. Directory.EnumerateFiles(Path.Combine(AppContext.BaseDirectory, "Transport", "Corpus"), "*.bin").Select(path => Path.GetFileNameWithoutExtension(path)).Order()];

    private static byte[] Read(string name) => File.ReadAllBytes(Path.Combine(AppContext.BaseDirectory, "Transport", "Corpus", name + ".bin"));

    private static byte[] Change(Random random, byte[] input, byte[] other)
    {
        byte[] changed = [.. input];
        for (int i = random.Next(1, 5); i > 0 && changed.Length > 0; i--)
        {
            // In a header for the most part: a page's content is of no consequence.
            int at = random.Next(3) == 0 ? random.Next(changed.Length) : random.Next(Math.Min(changed.Length, 64));
            switch (random.Next(5))
            {
                case 0:
                    changed[at] = (byte)random.Next(256);
                    break;
                case 1:
                    changed[at] ^= (byte)(1 << random.Next(8));
                    break;
                case 2:
                    changed = changed[..at];
                    break;
                case 3:
                    changed = [.. changed, .. other];
                    break;
                default:
                    // A part of it again.
                    changed = [.. changed[..at], .. changed[(at / 2)..]];
                    break;
            }
        }

        return changed;
    }

    private IEnumerable<ReadingEnd> EndsFor(string name) => name.Split('-')[1] switch
    {
        "bulk" => [new(ConnectionPurpose.Bulk, Store), new(ConnectionPurpose.Bulk, Receiver)],
        "demand" => [new(ConnectionPurpose.Demand, Store), new(ConnectionPurpose.Demand, LeftPages)],
        "drain" => [new(ConnectionPurpose.Drain, LeftPages)],
        "take" => [new(ConnectionPurpose.Take, Store)],
        _ => [new(ConnectionPurpose.Control, Receiver)],
    };

    /// <returns>What ended the connection; null: the input's own end.</returns>
    private static Exception? Serve(ReadingEnd end, byte[] input)
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        socket.Connect(IPAddress.Loopback, 9);
        using var stream = new RecordedStream(input);
        using var connection = new FrameConnection(stream, socket, Pages, ConnectionPurpose.None, connector: false);
        connection.Establish(Pages, end.Purpose);
        try
        {
            end.Serve(connection);
            return null;
        }
        catch (Exception e) when (e is IOException or MigrationException)
        {
            return e;
        }
    }

    private void Store(FrameConnection connection)
    {
        string path = Directory.CreateDirectory(Path.Combine(_directory, "store")).FullName;
        using (var store = PageStore.Open(path, Pages, 16))
        {
            var source = new SourceReader(at => throw new IOException($"nobody listens at {at}"));
            new StoreServer(store, source).Serve(connection, new PeerHello(new string('0', 32), WorkerRole.Source, connection.Purpose, Pages));
        }

        using var file = SparseFile.Open(Path.Combine(path, PageStore.FileName), write: false);
        Assert.InRange(SparseFile.AllocatedBytes(file), 0, 16 * PageIndex.PageSize);
    }

    private void Receiver(FrameConnection connection)
    {
        using var ram = Ram(out string path);
        using var table = new PageTable(Pages);
        using var pinned = new PageBitmap(Pages);
        var events = new Events();
        try
        {
            using var packed = PackedPages.Open(_directory, Pages);
            new MigrationReceiver(ram, packed, table, pinned, Subs, events).Serve(connection);
        }
        finally
        {
            Assert.Equal(Pages * PageIndex.PageSize, new FileInfo(path).Length);
            for (long page = 0; page < Pages; page++)
            {
                Assert.True(table[page].State is PageState.Unused or PageState.Resident or PageState.Packed
                    || (table[page].State == PageState.Remote && table[page].Sub <= Subs), $"{table[page]}");
            }

            Assert.InRange(events.TablesCompleted, 0, 1);
            Assert.InRange(events.LastPieces, 0, events.TablesCompleted);
        }
    }

    private void LeftPages(FrameConnection connection)
    {
        using var ram = Ram(out _);
        var left = new PageBitmap(Pages);
        left.Fill(new PageRange(10, 5), true);
        using var server = new LeftPagesServer { Pages = FCtrans.Agent.Migration.LeftPages.Keep(Path.Combine(_directory, "left"), ram, left) };
        try
        {
            server.Serve(connection, new PeerHello(new string('0', 32), WorkerRole.Main, connection.Purpose, Pages));
        }
        finally
        {
            // Nothing is given up before the commitment, whoever says so.
            Assert.Equal(5, server.Pages!.Count);
            server.Pages.Dispose();
        }
    }

    private GuestRam Ram(out string path)
    {
        path = Path.Combine(_directory, "ram");
        using (var file = File.Create(path))
        {
            file.SetLength(Pages * PageIndex.PageSize);
        }

        return new GuestRam([new RamBlock("ram0", 0, Pages, default, SparseFile.Open(path, write: true), path)], []);
    }

    private sealed record ReadingEnd(ConnectionPurpose Purpose, Action<FrameConnection> Serve);

    private sealed class Events : IMigrationEvents
    {
        public int TablesCompleted { get; private set; }

        public int LastPieces { get; private set; }

        public void LeftAtSource(IPAddress address, int port) => Assert.InRange(port, 1, 65535);

        public void TableComplete() => TablesCompleted++;

        public void DeviceState(ReadOnlySpan<byte> piece, bool last) => LastPieces += last ? 1 : 0;

        public void Commit()
        {
            if (LastPieces == 0)
            {
                throw new MigrationException("The source committed a VM that is not complete here.");
            }
        }

        public void Abort(string reason)
        {
        }
    }
}
