using System.Net;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Storage;

public sealed unsafe class PageStoreTests : IDisposable
{
    private const string SplitId = "0123456789abcdef0123456789abcdef";

    private readonly string _directory = Directory.CreateDirectory($"/dev/shm/fctrans-store-{Guid.NewGuid():N}").FullName;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Fact]
    public void What_was_put_is_there_after_a_restart_and_what_was_discarded_is_not()
    {
        using (var store = PageStore.Open(_directory, 1000, 1000))
        {
            Put(store, new(10, 5), 1);
            Put(store, new(200, 100), 2);
            // Zeros are content too: a page of them is there.
            Put(store, new(500, 1), 0);
            Assert.Equal(50, store.Discard(new(220, 50)));
            Assert.Equal(0, store.Discard(new(220, 50)));
            Assert.Equal(56, store.StoredPages);
            Assert.ThrowsAny<IOException>(() => PageStore.Open(_directory, 1000, 1000));
        }

        using var again = PageStore.Open(_directory, 1000, 1000);
        Assert.Equal(56, again.StoredPages);
        Assert.Equal([new(10, 5), new(200, 20), new(270, 30), new(500, 1)], Runs(again));
        byte[] page = new byte[4096];
        fixed (byte* p = page)
        {
            Assert.True(again.TryGet(12, p));
            Assert.All(page, b => Assert.Equal(1, b));
            Assert.True(again.TryGet(500, p));
            Assert.All(page, b => Assert.Equal(0, b));
            Assert.False(again.TryGet(221, p));
            Assert.False(again.TryGet(0, p));
        }
    }

    [Fact]
    public void Over_the_limit_nothing_new_is_kept_and_the_reason_says_what_to_do()
    {
        using var store = PageStore.Open(_directory, 1000, 100);
        Put(store, new(0, 90), 1);
        var e = Assert.Throws<StoreFullException>(() => Put(store, new(85, 20), 2));
        Assert.StartsWith("full:", e.Message, StringComparison.Ordinal);
        Assert.Equal(90, store.StoredPages);
        Put(store, new(0, 90), 3);
        store.Discard(new(0, 10));
        Put(store, new(85, 20), 2);
        Assert.Equal(95, store.StoredPages);
    }

    [Fact]
    public void Discarded_pages_give_their_memory_back()
    {
        using var store = PageStore.Open(_directory, 1000, 1000);
        Put(store, new(0, 1000), 1);
        store.Discard(new(0, 1000));
        Assert.Equal(0, new DirectoryInfo(_directory).GetFiles("pages").Sum(Allocated));
    }

    [Fact]
    public void Another_vms_store_is_not_taken()
    {
        PageStore.Open(_directory, 1000, 100).Dispose();
        var e = Assert.Throws<IOException>(() => PageStore.Open(_directory, 2000, 100));
        Assert.Contains("another VM", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Threads_that_work_on_neighbouring_pages_do_not_disturb_each_other()
    {
        using var store = PageStore.Open(_directory, 4096, 4096);
        var threads = Enumerable.Range(0, 4).Select(t => new Thread(() =>
        {
            for (int round = 0; round < 20; round++)
            {
                for (long page = t; page < 4096; page += 4)
                {
                    Put(store, new(page, 1), (byte)(t + 1));
                    if ((page + round) % 3 == 0)
                    {
                        store.Discard(new(page, 1));
                    }
                }
            }
        })).ToList();
        threads.ForEach(t => t.Start());
        threads.ForEach(t => t.Join());
        Assert.Equal(Runs(store).Sum(r => r.Count), store.StoredPages);
        byte[] content = new byte[4096];
        fixed (byte* p = content)
        {
            for (long page = 0; page < 4096; page++)
            {
                bool here = store.TryGet(page, p);
                Assert.Equal((page + 19) % 3 != 0, here);
                Assert.True(!here || content.AsSpan().IndexOfAnyExcept((byte)(page % 4 + 1)) < 0);
            }
        }
    }

    /// <summary>Frames of a connection that broke may still lie in our socket: they must not land on what the next one brings.</summary>
    [Fact]
    public void A_new_bulk_connection_is_served_only_after_the_old_one_has_ended()
    {
        using var store = PageStore.Open(_directory, 4096, 4096);
        var server = new StoreServer(store);
        using var listener = new PeerListener(
            new()
            {
                Address = IPAddress.Loopback,
                Role = WorkerRole.Sub,
                SplitId = SplitId,
                Pages = 4096,
                Certificate = null,
                Peers = new Dictionary<string, WorkerRole> { [""] = WorkerRole.Main },
            },
            server.Serve);
        listener.Start();
        var hello = new PeerHello(SplitId, WorkerRole.Main, ConnectionPurpose.Bulk, 4096);
        byte[] old = new byte[256 * 4096];
        Array.Fill(old, (byte)1);
        byte[] page = new byte[4096];
        Array.Fill(page, (byte)2);
        for (int round = 0; round < 20; round++)
        {
            using var first = PeerConnector.Connect(IPAddress.Loopback, listener.Port, "", null, hello, TimeSpan.FromSeconds(5), false, out _);
            first.Send(FrameHeader.Of(FrameType.Pages, new PageRange(0, 256)), old);
            first.Send(FrameHeader.Of(FrameType.Pages, new PageRange(0, 256)), old);
            first.Flush();
            using var second = PeerConnector.Connect(IPAddress.Loopback, listener.Port, "", null, hello, TimeSpan.FromSeconds(5), false, out _);
            second.Send(FrameHeader.Of(FrameType.Pages, new PageRange(255, 1)), page);
            second.Send(FrameHeader.Of(FrameType.Barrier, 1));
            second.Flush();
            Assert.True(second.Read(out var answer, []));
            Assert.Equal(FrameType.BarrierDone, answer.Type);
            Assert.True(SpinWait.SpinUntil(() => server.Figures.Connections <= 1, TimeSpan.FromSeconds(10)));
            byte[] content = new byte[4096];
            fixed (byte* p = content)
            {
                Assert.True(store.TryGet(255, p));
            }

            Assert.Equal(2, content[0]);
        }
    }

    [Fact]
    public void A_full_store_says_so_to_the_one_who_sends()
    {
        using var store = PageStore.Open(_directory, 4096, 10);
        var server = new StoreServer(store);
        using var listener = new PeerListener(
            new()
            {
                Address = IPAddress.Loopback,
                Role = WorkerRole.Sub,
                SplitId = SplitId,
                Pages = 4096,
                Certificate = null,
                Peers = new Dictionary<string, WorkerRole> { [""] = WorkerRole.Main },
                LimitPages = 10,
            },
            server.Serve);
        listener.Start();
        using var connection = PeerConnector.Connect(
            IPAddress.Loopback, listener.Port, "", null, new(SplitId, WorkerRole.Main, ConnectionPurpose.Bulk, 4096), TimeSpan.FromSeconds(5), false, out var peer);
        Assert.Equal(10, peer.LimitPages);
        connection.Send(FrameHeader.Of(FrameType.Pages, new PageRange(0, 11)), new byte[11 * 4096]);
        connection.Flush();
        var e = Assert.Throws<ProtocolException>(() => connection.Read(out _, []));
        Assert.Contains("full:", e.Message, StringComparison.Ordinal);
        Assert.Equal(0, store.StoredPages);
    }

    private static long Allocated(FileInfo file)
    {
        using var handle = FCtrans.Agent.Interop.SparseFile.Open(file.FullName, write: false);
        return FCtrans.Agent.Interop.SparseFile.AllocatedBytes(handle);
    }

    private static void Put(PageStore store, PageRange range, byte value)
    {
        byte[] content = new byte[range.Bytes];
        Array.Fill(content, value);
        using var filler = store.OpenFiller();
        fixed (byte* p = content)
        {
            store.Put(range, p, filler);
        }
    }

    private static List<PageRange> Runs(PageStore store)
    {
        var runs = new List<PageRange>();
        for (long from = 0; store.NextHeld(from, out var run); from = run.End)
        {
            runs.Add(run);
        }

        return runs;
    }
}
