using System.Net;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Migration;

public sealed unsafe class BulkSenderTests : IDisposable
{
    private const string SplitId = "0123456789abcdef0123456789abcdef";
    private const long Pages = 4096;

    private readonly string _directory = Directory.CreateDirectory($"/dev/shm/fctrans-sender-{Guid.NewGuid():N}").FullName;
    private readonly byte[] _content = new byte[Pages * PageIndex.PageSize];
    private readonly GuestRam _ram;
    private readonly PageStore _store;

    public BulkSenderTests()
    {
        // Of each kind: random pages, zeros, one word over and over, text that compresses.
        var random = new Random(7);
        for (int page = 0; page < Pages; page++)
        {
            var bytes = _content.AsSpan(page * PageIndex.PageSize, PageIndex.PageSize);
            switch (page / 16 % 4)
            {
                case 0:
                    random.NextBytes(bytes);
                    break;
                case 1:
                    bytes.Fill((byte)page);
                    break;
                case 2:
                    for (int i = 0; i < bytes.Length; i++)
                    {
                        bytes[i] = (byte)(i * page / 100);
                    }

                    break;
            }
        }

        string path = Path.Combine(_directory, "ram");
        File.WriteAllBytes(path, _content);
        _ram = new GuestRam([new RamBlock("ram0", 0, Pages, default, SparseFile.Open(path, write: false), path)], []);
        _store = PageStore.Open(_directory, Pages, Pages);
    }

    public void Dispose()
    {
        _ram.Dispose();
        _store.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    [Theory]
    [InlineData(1, true)]
    [InlineData(3, true)]
    [InlineData(2, false)]
    public void All_pages_arrive_whatever_the_number_of_connections(int lanes, bool reduce)
    {
        using var listener = Listen();
        using var sender = Sender(listener, lanes, reduce);
        SendAll(sender);
        Assert.Equal(Pages, sender.PagesSent + sender.ZeroPages);
        AssertStored(zerosAreHeld: !reduce);
        if (reduce)
        {
            Assert.Equal(Pages / 4, sender.TakeZeroRanges().Sum(range => range.Count));
            Assert.True(sender.BytesSent < Pages * PageIndex.PageSize * 3 / 4);
        }
    }

    [Fact]
    public void A_connection_that_is_cut_comes_back_and_nothing_is_lost()
    {
        int cuts = 0;
        // The listener ends a connection after some frames, three times, in the middle of what was sent.
        using var listener = Listen((connection, hello) =>
        {
            if (Interlocked.Increment(ref cuts) <= 3)
            {
                byte[] buffer = new byte[FrameHeader.MaxPayloadBytes];
                for (int i = 0; i < 2; i++)
                {
                    connection.Read(out _, buffer);
                }

                return;
            }

            new StoreServer(_store).Serve(connection, hello);
        });
        using var sender = Sender(listener, lanes: 2, reduce: true);
        SendAll(sender);
        Assert.Equal(3, sender.Reconnects);
        AssertStored(zerosAreHeld: false);
    }

    /// <summary>A round of any length gets through a link that drops again and again, and each drop costs no more than what was under way.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_connection_that_is_cut_again_and_again_repeats_little_and_gets_done(bool reduce)
    {
        const int confirmBytes = 256 << 10;
        const int pieceBytes = 100 * PageIndex.PageSize;
        long received = 0;
        using var listener = Listen((connection, _) =>
        {
            byte[] buffer = new byte[FrameHeader.MaxPayloadBytes];
            byte[] unpacked = new byte[FrameHeader.MaxPayloadBytes];
            using var filler = _store.OpenFiller();
            for (int bytes = 0; bytes < 3 * pieceBytes && connection.Read(out var frame, buffer);)
            {
                bytes += FrameHeader.Size + frame.PayloadBytes;
                Interlocked.Add(ref received, FrameHeader.Size + frame.PayloadBytes);
                Apply(connection, frame, buffer, unpacked, filler);
            }
        });
        using var sender = new BulkSender(
            "sub1", new SendOptions(_ram, reduce, null, confirmBytes), Connector(listener), lanes: 1);
        SendAll(sender);
        AssertStored(zerosAreHeld: !reduce);
        if (reduce)
        {
            // Those that were confirmed before a cut, and those that were sent again, each once.
            Assert.Equal(Pages / 4, sender.TakeZeroRanges().Sum(range => range.Count));
        }

        Assert.InRange(sender.Reconnects, reduce ? 4 : 9, int.MaxValue);
        long once = reduce ? received : Pages * PageIndex.PageSize;
        Assert.InRange(sender.BytesSent, received, once + (long)(sender.Reconnects + 1) * ((2 * confirmBytes) + (2 * pieceBytes)));
    }

    private void Apply(FrameConnection connection, FrameHeader frame, byte[] buffer, byte[] unpacked, HoleFiller filler)
    {
        switch (frame.Type)
        {
            case FrameType.Pages:
                buffer.AsSpan(0, frame.PayloadBytes).CopyTo(unpacked);
                break;
            case FrameType.CompressedPages:
                PageCompression.Decompress(buffer.AsSpan(0, frame.PayloadBytes), unpacked.AsSpan(0, (int)frame.Range.Bytes));
                break;
            case FrameType.RowPages:
                RowCodec.Decode(buffer.AsSpan(0, frame.PayloadBytes), unpacked.AsSpan(0, (int)frame.Range.Bytes));
                break;
            case FrameType.Barrier:
                connection.Send(FrameHeader.Of(FrameType.BarrierDone, frame.Sequence));
                connection.Flush();
                return;
            default:
                _store.Discard(frame.Range);
                return;
        }

        fixed (byte* content = unpacked)
        {
            _store.Put(frame.Range, content, filler);
        }
    }

    [Fact]
    public void A_host_that_stays_away_ends_it_when_the_patience_is_over()
    {
        var listener = Listen();
        using var sender = Sender(listener, lanes: 1, reduce: true);
        sender.Patience = TimeSpan.Zero;
        listener.Dispose();
        Assert.Throws<MigrationException>(() => SendAll(sender));
    }

    [Fact]
    public void A_host_without_room_says_so_and_is_not_asked_again()
    {
        string small = Directory.CreateDirectory(Path.Combine(_directory, "small")).FullName;
        using var store = PageStore.Open(small, Pages, 100);
        using var listener = Listen((connection, hello) => new StoreServer(store).Serve(connection, hello));
        using var sender = Sender(listener, lanes: 2, reduce: true);
        var e = Assert.Throws<MigrationException>(() => SendAll(sender));
        Assert.Contains("full:", e.Message, StringComparison.Ordinal);
        Assert.Equal(0, sender.Reconnects);
    }

    [Fact]
    public void A_main_host_whose_memory_can_not_be_written_says_so_and_has_received_nothing()
    {
        // As one that is full would: the write fails.
        using var table = new PageTable(Pages);
        using var pinned = new PageBitmap(Pages);
        using var packed = PackedPages.Open(Directory.CreateDirectory(Path.Combine(_directory, "beside")).FullName, Pages);
        var receiver = new MigrationReceiver(_ram, packed, table, pinned, 0, new NoEvents());
        int refused = 0;
        using var listener = Listen((connection, _) =>
        {
            try
            {
                // The other lane may be ended before it has sent anything: then there is nothing to refuse on it.
                receiver.Serve(connection);
            }
            catch (ProtocolException)
            {
                Interlocked.Increment(ref refused);
                connection.Drain();
            }
        });
        using var sender = Sender(listener, lanes: 2, reduce: true);
        var e = Assert.Throws<MigrationException>(() => SendAll(sender));
        Assert.Contains("could not be written", e.Message, StringComparison.Ordinal);
        // The sender hears of it a moment before.
        Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref refused) > 0, TimeSpan.FromSeconds(30)));
        Assert.Equal(0, table.Count(PageState.Resident));
    }

    private static void SendAll(BulkSender sender)
    {
        for (long page = 0; page < Pages; page += 100)
        {
            sender.Pages(new PageRange(page, Math.Min(100, Pages - page)));
        }

        sender.Barrier();
        sender.WaitBarrier(CancellationToken.None);
    }

    private void AssertStored(bool zerosAreHeld)
    {
        byte[] page = new byte[PageIndex.PageSize];
        fixed (byte* p = page)
        {
            for (int i = 0; i < Pages; i++)
            {
                var expected = _content.AsSpan(i * PageIndex.PageSize, PageIndex.PageSize);
                bool held = _store.TryGet(i, p);
                Assert.Equal(zerosAreHeld || i / 16 % 4 != 3, held);
                Assert.True(!held || expected.SequenceEqual(page), $"page {i}");
            }
        }
    }

    private BulkSender Sender(PeerListener listener, int lanes, bool reduce) => new(
        "sub1",
        new SendOptions(_ram, reduce, null),
        Connector(listener),
        lanes);

    private static Func<int, TimeSpan, CancellationToken, FrameConnection> Connector(PeerListener listener) =>
        (stream, limit, cancel) => PeerConnector.Connect(
            IPAddress.Loopback, listener.Port, "", null,
            new PeerHello(SplitId, WorkerRole.Source, ConnectionPurpose.Bulk, Pages, Stream: (byte)stream), limit, tls: false, out _, cancel);

    private PeerListener Listen(Action<FrameConnection, PeerHello>? serve = null)
    {
        var listener = new PeerListener(
            new PeerListenerOptions
            {
                Address = IPAddress.Loopback,
                Role = WorkerRole.Sub,
                SplitId = SplitId,
                Pages = Pages,
                Certificate = null,
                Peers = new Dictionary<string, WorkerRole> { ["source"] = WorkerRole.Source },
            },
            serve ?? ((connection, hello) => new StoreServer(_store).Serve(connection, hello)));
        listener.Start();
        return listener;
    }
}
