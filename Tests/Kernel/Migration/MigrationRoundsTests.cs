using System.Net;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;
using FCtrans.Kernel.Tests.Child;
using Xunit;

namespace FCtrans.Kernel.Tests.Migration;

/// <summary>Rounds of a process's memory to a main host and a sub-host, which are threads here.</summary>
public sealed unsafe class MigrationRoundsTests : IDisposable
{
    private const string SplitId = "0123456789abcdef0123456789abcdef";
    private const long Pages = 16 << 10;

    private readonly string _directory = Directory.CreateDirectory($"/dev/shm/fctrans-rounds-{Guid.NewGuid():N}").FullName;
    private readonly ChildProcess _child = new("poll", Pages);
    private readonly PageTable _table = new(Pages);
    private readonly PageBitmap _pinned = new(Pages);
    private readonly PageStore _store;
    private readonly GuestRam _mainRam;

    public MigrationRoundsTests()
    {
        _store = PageStore.Open(_directory, Pages, Pages);
        string path = Path.Combine(_directory, "ram");
        File.WriteAllBytes(path, []);
        var file = SparseFile.Open(path, write: true);
        SparseFile.SetLength(file, Pages << PageIndex.PageShift);
        _mainRam = new GuestRam([new RamBlock("ram0", 0, Pages, default, file, path)], []);
    }

    public void Dispose()
    {
        _child.Dispose();
        _table.Dispose();
        _pinned.Dispose();
        _store.Dispose();
        _mainRam.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    /// <summary>
    /// Every other page is unused, and every fourth all zeros: no two used ones lie together. What the source notes for the main host must not
    /// grow with their number, so the main host is told in between, and of nothing that is not where it is told.
    /// </summary>
    [Fact]
    public void Memory_in_single_pages_is_told_of_before_the_round_ends()
    {
        const int most = 500;
        byte[] content = new byte[PageIndex.PageSize];
        for (long page = 0; page < Pages; page += 4)
        {
            Array.Fill(content, (byte)(1 + (page % 251)));
            RandomAccess.Write(_child.File, content, page << PageIndex.PageShift);
        }

        using var ram = new GuestRam(
            [new RamBlock("ram0", 0, Pages, _child.Base, SparseFile.Open($"/proc/self/fd/{_child.File.DangerousGetHandle()}", write: true), "")], []);
        using var tracker = DirtyTracker.Start(ram, _child.Pid);
        using var unused = new EveryOther();
        using var none = new PageBitmap(Pages);
        using var placement = new Placement(Pages, none, null, mainRoomPages: 0, [Pages]);
        using var packed = PackedPages.Open(Directory.CreateDirectory(Path.Combine(_directory, "beside")).FullName, Pages);
        var receiver = new MigrationReceiver(_mainRam, packed, _table, _pinned, 1, new NoEvents());
        using var main = Listen(WorkerRole.Main, (connection, _) => receiver.Serve(connection));
        using var sub = Listen(WorkerRole.Sub, (connection, hello) => new StoreServer(_store).Serve(connection, hello));
        using var control = new ControlChannel((limit, cancel) => Connect(main, ConnectionPurpose.Control, 0, limit, cancel));
        var options = new SendOptions(ram, Reduce: true, null);
        using var toMain = new BulkSender("main", options, (stream, limit, cancel) => Connect(main, ConnectionPurpose.Bulk, stream, limit, cancel), lanes: 1);
        using var toSub = new BulkSender("sub", options, (stream, limit, cancel) => Connect(sub, ConnectionPurpose.Bulk, stream, limit, cancel), lanes: 2);
        using var rounds = new MigrationRounds(Pages, tracker, unused, placement, [toMain, toSub], control, new MigrationProgress(), most);

        long given = 0;
        long leastTold = long.MaxValue;
        rounds.Send(CancellationToken.None, () =>
        {
            // Asked before each 64 pages, of which 32 are used.
            long told = _table.Count(PageState.Remote);
            Assert.True(told <= given);
            leastTold = Math.Min(leastTold, told - (given / 2) + most);
            given += 32;
            return false;
        });
        Assert.Equal(Pages / 2, given);
        // A range of zeros is noted twice: as placed, and as zeros.
        Assert.True(leastTold >= -32, $"{-leastTold} more than it may note");
        Assert.Equal(Pages / 4, _table.Count(PageState.Remote));
        byte[] page0 = new byte[PageIndex.PageSize];
        fixed (byte* p = page0)
        {
            for (long page = 0; page < Pages; page++)
            {
                Assert.Equal(page % 4 == 0 ? PageState.Remote : PageState.Unused, _table[page].State);
                Assert.Equal(page % 4 == 0, _store.TryGet(page, p));
                Assert.True(page % 4 != 0 || !page0.AsSpan().ContainsAnyExcept((byte)(1 + (page % 251))), $"page {page}");
            }
        }
    }

    private static FrameConnection Connect(PeerListener listener, ConnectionPurpose purpose, int stream, TimeSpan limit, CancellationToken cancel) =>
        PeerConnector.Connect(
            IPAddress.Loopback, listener.Port, "", null, new PeerHello(SplitId, WorkerRole.Source, purpose, Pages, Stream: (byte)stream),
            limit, tls: false, out _, cancel);

    private static PeerListener Listen(WorkerRole role, Action<FrameConnection, PeerHello> serve)
    {
        var listener = new PeerListener(
            new PeerListenerOptions
            {
                Address = IPAddress.Loopback, Role = role, SplitId = SplitId, Pages = Pages, Certificate = null,
                Peers = new Dictionary<string, WorkerRole> { ["source"] = WorkerRole.Source },
            },
            serve);
        listener.Start();
        return listener;
    }

    private sealed class EveryOther : IUnusedPages
    {
        public UnusedFigures Refresh(PageBitmap unused, PageBitmap? written)
        {
            for (long page = 1; page < unused.PageCount; page += 2)
            {
                unused[page] = true;
            }

            return new UnusedFigures { Method = "off", Reason = "", GuestKernel = "", Total = unused.PageCount };
        }

        public void KernelPages(PageBitmap kernelPages, PageBitmap unused)
        {
        }

        public void HotPages(PageBitmap hotPages, PageBitmap unused)
        {
        }

        public void Dispose()
        {
        }
    }

    private sealed class NoEvents : IMigrationEvents
    {
        public void LeftAtSource(IPAddress address, int port) => throw new NotSupportedException();

        public void TableComplete() => throw new NotSupportedException();

        public void DeviceState(ReadOnlySpan<byte> piece, bool last) => throw new NotSupportedException();

        public void Commit() => throw new NotSupportedException();

        public void Abort(string reason) => throw new NotSupportedException();
    }
}
