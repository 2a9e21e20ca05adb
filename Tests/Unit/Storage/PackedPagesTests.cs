using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Transport;
using FCtrans.Unit.Tests.Transport;
using Xunit;

namespace FCtrans.Unit.Tests.Storage;

/// <summary>What a sub-host keeps of pages that come packed, and what comes of them when they come or go otherwise.</summary>
public sealed unsafe class PackedPagesTests : IDisposable
{
    /// <summary>Of a store. In all, 64 pages of the file have slots for them, and one has slots that no page needs.</summary>
    private const int Pages = 1000;

    private readonly string _directory = Directory.CreateDirectory($"/dev/shm/fctrans-packed-{Guid.NewGuid():N}").FullName;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Fact]
    public void Packed_pages_take_a_fifteenth_and_come_back_the_same_after_a_restart()
    {
        using (var store = Open())
        {
            PutRows(store, 0, Pages, version: 1);
            Assert.Equal(Pages, store.StoredPages);
            Assert.Equal(Slots(Pages), Allocated());
            AssertIs(store, 700, RowTables.Page(700, 1));
        }

        using var again = Open();
        Assert.Equal(Pages, again.StoredPages);
        for (int page = 0; page < Pages; page++)
        {
            AssertIs(again, page, RowTables.Page(page, 1));
        }

        Assert.Equal(Pages, again.Discard(new(0, Pages)));
        Assert.Equal(0, Allocated());
    }

    /// <summary>A page with more exceptions than a slot has room for is kept whole, among others that are packed.</summary>
    [Fact]
    public void A_page_that_does_not_fit_is_kept_whole()
    {
        using (var store = Open())
        {
            PutRows(store, 0, 64, version: 1, exceptions: page => page % 5);
            for (int page = 0; page < 64; page++)
            {
                AssertIs(store, page, RowTables.Page(page, 1, page % 5));
            }

            Assert.Equal(64, store.StoredPages);
            int whole = Enumerable.Range(0, 64).Count(page => page % 5 > 2);
            Assert.Equal((whole * PageIndex.PageSize) + Slots(64), Allocated());
        }

        using var again = Open();
        Assert.Equal(64, again.StoredPages);
        for (int page = 0; page < 64; page++)
        {
            AssertIs(again, page, RowTables.Page(page, 1, page % 5));
        }
    }

    [Fact]
    public void A_page_is_in_one_of_the_two_files_only()
    {
        using (var store = Open())
        {
            PutRows(store, 0, 64, version: 1);
            PutWhole(store, 16, 32, version: 2);
            // The second of the file's five pages has one slot left that is taken, the third none.
            Assert.Equal((32 * PageIndex.PageSize) + Slots(64) - PageIndex.PageSize, Allocated());
            PutRows(store, 32, 4, version: 3);
            Assert.Equal(64, store.StoredPages);
        }

        using var again = Open();
        Assert.Equal(64, again.StoredPages);
        for (int page = 0; page < 64; page++)
        {
            AssertIs(again, page, RowTables.Page(page, page is >= 32 and < 36 ? 3 : page is >= 16 and < 48 ? 2 : 1));
        }

        Assert.Equal((28 * PageIndex.PageSize) + Slots(64), Allocated());
    }

    /// <summary>Killed after the one file was written and before the other was: the owner was not told, and sends it again.</summary>
    [Fact]
    public void A_page_found_in_both_files_stays_in_one()
    {
        using (var store = Open())
        {
            PutRows(store, 0, 64, version: 1);
        }

        using (var file = SparseFile.Open(Path.Combine(_directory, PageStore.FileName), write: true))
        {
            fixed (byte* content = RowTables.Page(5, 2))
            {
                Assert.Equal(PageIndex.PageSize, (int)SparseFile.Write(file, content, PageIndex.PageSize, 5 * PageIndex.PageSize));
            }
        }

        for (int turn = 0; turn < 2; turn++)
        {
            using var again = Open();
            Assert.Equal(64, again.StoredPages);
            AssertIs(again, 5, RowTables.Page(5, 2));
            AssertIs(again, 4, RowTables.Page(4, 1));
        }

        using var last = Open();
        last.Discard(new(5, 1));
        last.Dispose();
        using var empty = Open();
        Assert.Equal(63, empty.StoredPages);
        Assert.False(empty.Has(5));
    }

    [Theory]
    [InlineData(-1)]
    [InlineData(1)]
    public void What_is_not_exactly_these_pages_is_refused_whole(int difference)
    {
        using var store = Open();
        byte[] rows = Rows(0, 3, 1);
        byte[] damaged = difference < 0 ? rows[..^1] : [.. rows, 0];
        using var filler = store.OpenFiller();
        Assert.Throws<ProtocolException>(() => store.PutRows(new(0, 3), damaged, new byte[3 * PageIndex.PageSize], filler));
        rows[RowCodec.MinEncodedBytes] = 200;
        Assert.Throws<ProtocolException>(() => store.PutRows(new(0, 3), rows, new byte[3 * PageIndex.PageSize], filler));
        Assert.Equal(0, store.StoredPages);
        Assert.Equal(0, Allocated());
    }

    [Fact]
    public void The_limit_counts_packed_pages_like_others()
    {
        using var store = PageStore.Open(_directory, Pages, 40);
        PutRows(store, 0, 40, version: 1);
        Assert.Throws<StoreFullException>(() => PutRows(store, 39, 2, version: 2));
        Assert.Equal(40, store.StoredPages);
        AssertIs(store, 39, RowTables.Page(39, 1));
        PutRows(store, 39, 1, version: 2);
        AssertIs(store, 39, RowTables.Page(39, 2));
    }

    [Fact]
    public void Threads_that_put_and_drop_neighbours_in_all_ways_do_not_disturb_each_other()
    {
        const int threads = 4;
        var expected = new byte[threads][][];
        using (var store = Open())
        {
            Parallel.For(0, threads, new ParallelOptions { MaxDegreeOfParallelism = threads }, t =>
            {
                var random = new Random(t);
                var mine = expected[t] = new byte[Pages][];
                for (int turn = 0; turn < 20_000; turn++)
                {
                    // Neighbours in the file's pages belong to all threads.
                    int page = (random.Next(Pages / threads) * threads) + t;
                    switch (random.Next(4))
                    {
                        case 0:
                            store.Discard(new(page, 1));
                            mine[page] = null!;
                            break;
                        case 1:
                            PutWhole(store, page, 1, turn);
                            mine[page] = RowTables.Page(page, turn);
                            break;
                        default:
                            PutRows(store, page, 1, turn, _ => turn % 4);
                            mine[page] = RowTables.Page(page, turn, turn % 4);
                            break;
                    }

                    int look = (random.Next(Pages / threads) * threads) + t;
                    AssertIs(store, look, mine[look]);
                }
            });
            AssertAll(store);
        }

        using var again = Open();
        AssertAll(again);

        void AssertAll(PageStore store)
        {
            int count = 0;
            for (int page = 0; page < Pages; page++)
            {
                var content = expected[page % threads][page];
                AssertIs(store, page, content);
                count += content is null ? 0 : 1;
            }

            Assert.Equal(count, store.StoredPages);
        }
    }

    private PageStore Open() => PageStore.Open(_directory, Pages, Pages);

    private static long Slots(int pages) =>
        (pages + PackedPages.SlotsPerPage - 1) / PackedPages.SlotsPerPage * PageIndex.PageSize;

    private long Allocated() => new DirectoryInfo(_directory).GetFiles().Sum(file =>
    {
        using var handle = SparseFile.Open(file.FullName, write: false);
        return SparseFile.AllocatedBytes(handle);
    });

    private static void AssertIs(PageStore store, int page, byte[]? content)
    {
        byte[] found = new byte[PageIndex.PageSize];
        fixed (byte* p = found)
        {
            Assert.Equal(content is not null, store.TryGet(page, p));
        }

        Assert.True(content is null || found.AsSpan().SequenceEqual(content), $"page {page} has other content");
    }

    private static void PutWhole(PageStore store, int first, int count, int version)
    {
        byte[] content = [.. Enumerable.Range(first, count).SelectMany(page => RowTables.Page(page, version))];
        using var filler = store.OpenFiller();
        fixed (byte* p = content)
        {
            store.Put(new(first, count), p, filler);
        }
    }

    private static void PutRows(PageStore store, int first, int count, int version, Func<int, int>? exceptions = null)
    {
        using var filler = store.OpenFiller();
        byte[] unpacked = new byte[RowCodec.MaxPages * PageIndex.PageSize];
        for (int end = first + count; first < end; first += RowCodec.MaxPages)
        {
            int part = Math.Min(RowCodec.MaxPages, end - first);
            store.PutRows(new(first, part), Rows(first, part, version, exceptions), unpacked, filler);
        }
    }

    private static byte[] Rows(int first, int count, int version, Func<int, int>? exceptions = null) =>
        RowTables.Encode([.. Enumerable.Range(first, count).Select(page => RowTables.Page(page, version, exceptions?.Invoke(page) ?? 0))]);
}
