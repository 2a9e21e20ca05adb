using System.Net;
using System.Text;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Migration;

public sealed unsafe class LeftPagesTests : IDisposable
{
    private const string SplitId = "0123456789abcdef0123456789abcdef";
    private const long Pages = 1000;

    private readonly string _directory = Directory.CreateDirectory($"/dev/shm/fctrans-left-{Guid.NewGuid():N}").FullName;
    private readonly GuestRam _ram;

    public LeftPagesTests()
    {
        byte[] content = new byte[Pages * PageIndex.PageSize];
        for (int page = 0; page < Pages; page++)
        {
            content.AsSpan(page * PageIndex.PageSize, PageIndex.PageSize).Fill((byte)(page % 251 + 1));
        }

        string path = Path.Combine(_directory, "ram");
        File.WriteAllBytes(path, content);
        _ram = new GuestRam([new RamBlock("ram0", 0, Pages, default, SparseFile.Open(path, write: true), path)], []);
    }

    public void Dispose()
    {
        _ram.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    [Fact]
    public void What_was_given_up_does_not_come_back_with_a_restarted_worker()
    {
        using (var left = Keep(new PageRange(10, 100), new PageRange(500, 20)))
        {
            left.MayBeGivenUp = true;
            left.Discard(new PageRange(50, 460));
            Assert.Equal(40 + 10, left.Count);
        }

        using var again = LeftPages.Reopen(PagesPath, _ram);
        Assert.Equal([new(10, 40), new(510, 10)], Runs(again));
        byte[] page = new byte[PageIndex.PageSize];
        fixed (byte* p = page)
        {
            Assert.True(again.TryGet(49, p));
            Assert.All(page, b => Assert.Equal(50, b));
            Assert.False(again.TryGet(50, p));
            // In the RAM file, but it was never left here.
            Assert.False(again.TryGet(200, p));
        }
    }

    [Fact]
    public void Nothing_is_given_up_as_long_as_the_VM_may_have_to_run_here_again()
    {
        using var left = Keep(new PageRange(10, 100));
        Assert.Throws<IOException>(() => left.Discard(new PageRange(10, 1)));
        Assert.Equal(100, left.Count);
        byte[] page = new byte[PageIndex.PageSize];
        fixed (byte* p = page)
        {
            SparseFile.Read(_ram.BlockOf(10).File, p, PageIndex.PageSize, 10 * PageIndex.PageSize);
            Assert.Equal(11, page[0]);
        }
    }

    [Fact]
    public void The_main_host_gets_pages_and_gives_them_up_in_one_connection_and_can_put_none()
    {
        using var left = Keep(new PageRange(100, 50));
        left.MayBeGivenUp = true;
        using var server = new LeftPagesServer { Pages = left };
        using var listener = new PeerListener(
            new PeerListenerOptions
            {
                Address = IPAddress.Loopback, Role = WorkerRole.Source, SplitId = SplitId, Pages = Pages, Certificate = null,
                Peers = new Dictionary<string, WorkerRole> { ["main"] = WorkerRole.Main },
            },
            server.Serve);
        listener.Start();
        byte[] buffer = new byte[FrameHeader.MaxPayloadBytes];
        using (var drain = Connect(listener, ConnectionPurpose.Drain))
        {
            drain.Send(FrameHeader.Of(FrameType.Get, new PageRange(145, 10), 7));
            drain.Send(FrameHeader.Of(FrameType.Discard, new PageRange(145, 10)));
            drain.Send(FrameHeader.Of(FrameType.Barrier, 8));
            drain.Flush();
            Assert.True(drain.Read(out var answer, buffer));
            Assert.Equal((FrameType.GetDone, 7u), (answer.Type, answer.Sequence));
            Assert.Equal([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], buffer.AsSpan(0, 10).ToArray());
            Assert.Equal(10 + (5 * PageIndex.PageSize), answer.PayloadBytes);
            Assert.Equal(149 + 1, buffer[10 + (4 * PageIndex.PageSize)]);
            Assert.True(drain.Read(out answer, buffer));
            Assert.Equal(FrameType.BarrierDone, answer.Type);
            Assert.Equal(45, left.Count);
        }

        using (var bulk = Connect(listener, ConnectionPurpose.Bulk))
        {
            bulk.Send(FrameHeader.Of(FrameType.Pages, new PageRange(0, 1)), new byte[PageIndex.PageSize]);
            bulk.Flush();
            Assert.Throws<ProtocolException>(() => bulk.Read(out _, buffer));
        }

        using var control = Connect(listener, ConnectionPurpose.Control);
        control.SendText(FrameType.Control, (byte)ControlCode.End, "done");
        Assert.True(server.Over.WaitOne(TimeSpan.FromSeconds(30)));
    }

    [Fact]
    public void The_users_limit_holds_for_all_but_what_the_guest_waits_for()
    {
        const int bytes = FrameHeader.Size + 10 + (10 * PageIndex.PageSize);
        Assert.Equal(0, PaidFor(WorkerRole.Main, ConnectionPurpose.Demand));
        Assert.Equal(2 * bytes, PaidFor(WorkerRole.Main, ConnectionPurpose.Drain));
        Assert.Equal(2 * bytes, PaidFor(WorkerRole.Sub, ConnectionPurpose.Demand));
    }

    private long PaidFor(WorkerRole role, ConnectionPurpose purpose)
    {
        using var left = Keep(new PageRange(100, 50));
        var limiter = new RateLimiter(1L << 40);
        using var server = new LeftPagesServer(limiter) { Pages = left };
        using (var listener = new PeerListener(
            new PeerListenerOptions
            {
                Address = IPAddress.Loopback, Role = WorkerRole.Source, SplitId = SplitId, Pages = Pages, Certificate = null,
                Peers = new Dictionary<string, WorkerRole> { ["main"] = WorkerRole.Main, ["sub"] = WorkerRole.Sub },
            },
            server.Serve))
        {
            listener.Start();
            byte[] buffer = new byte[FrameHeader.MaxPayloadBytes];
            using var connection = PeerConnector.Connect(
                IPAddress.Loopback, listener.Port, "", null, new PeerHello(SplitId, role, purpose, Pages), TimeSpan.FromSeconds(10), tls: false, out _);
            for (int i = 0; i < 2; i++)
            {
                connection.Send(FrameHeader.Of(FrameType.Get, new PageRange(110, 10), 7));
                connection.Flush();
                Assert.True(connection.Read(out var answer, buffer));
                Assert.Equal(10 + (10 * PageIndex.PageSize), answer.PayloadBytes);
            }
        }

        // The listener waits for its threads, so all is counted.
        return limiter.Taken;
    }

    [Fact]
    public void A_sub_host_takes_pages_from_the_source_and_leaves_alone_what_the_source_has_not()
    {
        using var left = Keep(new PageRange(100, 50));
        using var server = new LeftPagesServer { Pages = left };
        using var source = new PeerListener(
            new PeerListenerOptions
            {
                Address = IPAddress.Loopback, Role = WorkerRole.Source, SplitId = SplitId, Pages = Pages, Certificate = null,
                Peers = new Dictionary<string, WorkerRole> { ["main"] = WorkerRole.Main, ["sub"] = WorkerRole.Sub },
            },
            server.Serve);
        source.Start();
        using var store = PageStore.Open(_directory, Pages, Pages);
        var stores = new StoreServer(store, new SourceReader(at => PeerConnector.Connect(
            at.Address, at.Port, "", null, new PeerHello(SplitId, WorkerRole.Sub, ConnectionPurpose.Demand, Pages), TimeSpan.FromSeconds(10), tls: false, out _)));
        using var sub = new PeerListener(
            new PeerListenerOptions
            {
                Address = IPAddress.Loopback, Role = WorkerRole.Sub, SplitId = SplitId, Pages = Pages, Certificate = null,
                Peers = new Dictionary<string, WorkerRole> { ["main"] = WorkerRole.Main },
            },
            stores.Serve);
        sub.Start();
        byte[] buffer = new byte[FrameHeader.MaxPayloadBytes];
        using (var take = Connect(sub, ConnectionPurpose.Take))
        {
            take.Send(FrameHeader.Of(FrameType.Take, new PageRange(98, 4), 3), Encoding.UTF8.GetBytes($"127.0.0.1:{source.Port}"));
            take.Send(FrameHeader.Of(FrameType.Take, new PageRange(140, 15), 4), Encoding.UTF8.GetBytes($"127.0.0.1:{source.Port}"));
            take.Flush();
            Assert.True(take.Read(out var answer, buffer));
            Assert.Equal((FrameType.TakeDone, 3u, 4), (answer.Type, answer.Sequence, answer.PayloadBytes));
            Assert.Equal([0, 0, 1, 1], buffer.AsSpan(0, 4).ToArray());
            Assert.True(take.Read(out answer, buffer));
            Assert.Equal((FrameType.TakeDone, 4u), (answer.Type, answer.Sequence));
        }

        Assert.Equal((12L, 12L), (store.StoredPages, stores.Figures.PagesWritten));
        Assert.False(store.Has(99));
        byte[] page = new byte[PageIndex.PageSize];
        fixed (byte* p = page)
        {
            Assert.True(store.TryGet(149, p));
        }

        Assert.All(page, b => Assert.Equal(149 + 1, b));
        // A sub-host may ask, and no more; and it may ask the source, and nobody may have it ask but the main host.
        var refused = Assert.Throws<PeerConnectionException>(() => PeerConnector.Connect(
            IPAddress.Loopback, source.Port, "", null, new PeerHello(SplitId, WorkerRole.Sub, ConnectionPurpose.Bulk, Pages), TimeSpan.FromSeconds(10), tls: false, out _));
        Assert.True(refused.IsRefused);
        using var nobody = Connect(sub, ConnectionPurpose.Take);
        nobody.Send(FrameHeader.Of(FrameType.Take, new PageRange(100, 1), 5), "localhost"u8);
        nobody.Flush();
        Assert.Throws<ProtocolException>(() => nobody.Read(out _, buffer));
    }

    private string PagesPath => Path.Combine(_directory, "left");

    private LeftPages Keep(params ReadOnlySpan<PageRange> ranges)
    {
        var pages = new PageBitmap(Pages);
        foreach (var range in ranges)
        {
            pages.Fill(range, true);
        }

        return LeftPages.Keep(PagesPath, _ram, pages);
    }

    private static List<PageRange> Runs(LeftPages left)
    {
        var runs = new List<PageRange>();
        for (long from = 0; left.NextHeld(from, out var run); from = run.End)
        {
            runs.Add(run);
        }

        return runs;
    }

    private static FrameConnection Connect(PeerListener listener, ConnectionPurpose purpose) => PeerConnector.Connect(
        IPAddress.Loopback, listener.Port, "", null, new PeerHello(SplitId, WorkerRole.Main, purpose, Pages), TimeSpan.FromSeconds(10),
        tls: false, out _);
}
