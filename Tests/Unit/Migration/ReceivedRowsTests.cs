using System.Net;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;
using FCtrans.Unit.Tests.Transport;
using Xunit;

namespace FCtrans.Unit.Tests.Migration;

/// <summary>What a main host makes of pages that come packed, and of those that come otherwise before or after; and that looks see all of it.</summary>
public sealed unsafe class ReceivedRowsTests : IDisposable
{
    private const string SplitId = "0123456789abcdef0123456789abcdef";
    private const int Pages = 256;

    /// <summary>Two blocks: their pages go on with one another, their files do not.</summary>
    private const int FirstBlock = 100;

    private readonly string _directory = Directory.CreateDirectory($"/dev/shm/fctrans-rows-{Guid.NewGuid():N}").FullName;
    private readonly GuestRam _ram;
    private readonly PackedPages _packed;
    private readonly PageTable _table = new(Pages);
    private readonly PageBitmap _pinned = new(Pages);

    public ReceivedRowsTests()
    {
        _packed = PackedPages.Open(_directory, Pages);
        _ram = new GuestRam([Block("ram0", 0, FirstBlock), Block("ram1", FirstBlock, Pages - FirstBlock)], []) { Beside = _packed };
    }

    public void Dispose()
    {
        _ram.Dispose();
        _packed.Dispose();
        _table.Dispose();
        _pinned.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    [Fact]
    public void Whatever_came_last_is_what_there_is()
    {
        byte[]?[] expected = new byte[Pages][];
        var random = new Random(3);
        Serve(connection =>
        {
            for (int turn = 0; turn < 3_000; turn++)
            {
                int first = random.Next(Pages);
                int count = Math.Min(Pages - first, 1 + random.Next(20));
                var range = new PageRange(first, count);
                byte[][] content = [.. Enumerable.Range(first, count).Select(page => RowTables.Page(page, turn, exceptions: random.Next(5)))];
                switch (random.Next(5))
                {
                    case 0:
                        connection.Send(FrameHeader.Of(FrameType.Discard, range));
                        content = new byte[count][];
                        break;
                    case 1:
                        connection.Send(FrameHeader.Of(FrameType.Pages, range), content.SelectMany(c => c).ToArray());
                        break;
                    case 2:
                        // It goes to a sub-host, which says so on another connection.
                        connection.Send(FrameHeader.Of(FrameType.Discard, range));
                        connection.Send(FrameHeader.Of(FrameType.Located, range));
                        content = new byte[count][];
                        break;
                    default:
                        connection.Send(FrameHeader.Of(FrameType.RowPages, range), RowTables.Encode(content));
                        break;
                }

                content.CopyTo(expected, first);
            }
        });

        byte[] found = new byte[PageIndex.PageSize];
        for (int page = 0; page < Pages; page++)
        {
            var block = _ram.BlockOf(page);
            fixed (byte* p = found)
            {
                Assert.Equal(PageIndex.PageSize, _ram.Read(block, p, PageIndex.PageSize, (page - block.FirstPage) * (long)PageIndex.PageSize));
            }

            var state = _table[page].State;
            Assert.True(found.AsSpan().SequenceEqual(expected[page] ?? new byte[PageIndex.PageSize]), $"page {page}, {state}");
            Assert.Equal(expected[page] is not null, state is PageState.Packed or PageState.Resident);
            Assert.Equal(state == PageState.Packed, _packed.Has(page));
            // A page is in one of the files only, and none that is not packed takes memory twice.
            long offset = (page - block.FirstPage) * (long)PageIndex.PageSize;
            Assert.Equal(state == PageState.Resident, SparseFile.NextData(block.File, offset) == offset);
        }

        Assert.True(_table.Count(PageState.Packed) > 50 && _table.Count(PageState.Resident) > 50);
    }

    [Theory]
    [InlineData(0, 0, 4096)]
    [InlineData(3, 100, 9000)]
    [InlineData(9, 4095, 2)]
    [InlineData(90, 8, 40952)]
    [InlineData(120, 0, 100 * 4096)]
    [InlineData(100, 4088, 16)]
    public void A_look_reads_packed_pages_and_others_alike_at_any_offset(int page, int inPage, int bytes)
    {
        byte[] all = new byte[Pages * PageIndex.PageSize];
        for (int p = 0; p < Pages; p++)
        {
            byte[] content = RowTables.Page(p, version: 1);
            if (p % 7 < 3)
            {
                Assert.Equal(Errno.None, _packed.Put(new(p, 1), RowTables.Encode([content])));
                content.CopyTo(all, p * PageIndex.PageSize);
            }
            else if (p % 7 < 5)
            {
                var of = _ram.BlockOf(p);
                fixed (byte* c = content)
                {
                    SparseFile.Write(of.File, c, PageIndex.PageSize, (p - of.FirstPage) * (long)PageIndex.PageSize);
                }

                content.CopyTo(all, p * PageIndex.PageSize);
            }
        }

        var block = _ram.BlockOf(page);
        byte[] found = new byte[bytes];
        fixed (byte* f = found)
        {
            Assert.Equal(bytes, _ram.Read(block, f, bytes, ((page - block.FirstPage) * (long)PageIndex.PageSize) + inPage));
        }

        Assert.True(all.AsSpan((page * PageIndex.PageSize) + inPage, bytes).SequenceEqual(found));
    }

    private RamBlock Block(string id, long first, long pages)
    {
        string path = Path.Combine(_directory, id);
        File.WriteAllBytes(path, []);
        var file = SparseFile.Open(path, write: true);
        SparseFile.SetLength(file, pages << PageIndex.PageShift);
        return new RamBlock(id, first, pages, default, file, path);
    }

    /// <summary>As a source that sends this and waits until all of it is applied.</summary>
    private void Serve(Action<FrameConnection> send)
    {
        var receiver = new MigrationReceiver(_ram, _packed, _table, _pinned, 1, new NoEvents());
        using var listener = new PeerListener(
            new PeerListenerOptions
            {
                Address = IPAddress.Loopback,
                Role = WorkerRole.Main,
                SplitId = SplitId,
                Pages = Pages,
                Certificate = null,
                Peers = new Dictionary<string, WorkerRole> { ["source"] = WorkerRole.Source },
            },
            (connection, _) => receiver.Serve(connection));
        listener.Start();
        var hello = new PeerHello(SplitId, WorkerRole.Source, ConnectionPurpose.Bulk, Pages);
        using var connection = PeerConnector.Connect(IPAddress.Loopback, listener.Port, "", null, hello, TimeSpan.FromSeconds(5), false, out _);
        send(connection);
        connection.Send(FrameHeader.Of(FrameType.Barrier, 1));
        connection.Flush();
        Assert.True(connection.Read(out var answer, []));
        Assert.Equal(FrameType.BarrierDone, answer.Type);
    }
}
