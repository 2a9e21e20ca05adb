using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Tracking;
using FCtrans.Contracts;
using Microsoft.Win32.SafeHandles;
using Xunit;

namespace FCtrans.Unit.Tests.Tracking;

/// <summary>The map of a VM's memory: all of it, each part told by what it is and where it lies.</summary>
public sealed class MemoryMapBuilderTests
{
    private const long Pages = 3000;
    private const ulong FourGiB = 1UL << 32;

    [Fact]
    public void Each_part_is_what_most_of_it_is_and_neighbours_alike_are_one()
    {
        using var ram = Ram();
        using var set = new UnusedSet(Pages);
        Fill(set, free: new(0, 512), holes: new(512, 700));
        var merged = Build(ram, set, null, 512, merge: true);
        Assert.Equal(
            [(0, 512, MemoryKind.Free, 0), (512, 488, MemoryKind.NeverTouched, -1), (1000, 24, MemoryKind.NeverTouched, -1),
             (1024, 976, MemoryKind.Used, 0), (2000, 1000, MemoryKind.Used, 0)],
            merged.Select(r => ((int)r.FirstPage, (int)r.Pages, r.Kind, r.Place)));
        // 1000 is where the memory above 4 GiB begins; the hot-plugged block has no place on the bus.
        Assert.Equal([0UL, 512 << 12, FourGiB, FourGiB + (24 << 12)], merged.Take(4).Select(r => r.GuestPhysicalAddress));
        Assert.False(merged[4].HasGuestPhysicalAddress);
        Assert.Equal([0u, 0, 0, 0, 1], merged.Select(r => r.RamBlock));
        Assert.Equal(212u - 24, merged[3].NeverTouchedPages);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(512)]
    [InlineData(100_000)]
    public void At_every_granularity_it_is_all_of_the_memory_once(long granule)
    {
        using var ram = Ram();
        using var set = new UnusedSet(Pages);
        Fill(set, free: new(100, 33), holes: new(990, 20));
        foreach (bool merge in new[] { false, true })
        {
            ulong next = 0;
            ulong free = 0;
            foreach (var range in Build(ram, set, null, granule, merge))
            {
                Assert.Equal(next, range.FirstPage);
                next += range.Pages;
                free += range.FreePages;
                Assert.Equal(range.Pages, range.FreePages + range.NeverTouchedPages + range.BalloonedPages + range.UsedPages);
                Assert.True(merge || range.Pages <= (ulong)granule);
            }

            Assert.Equal(((ulong)Pages, 33UL), (next, free));
        }
    }

    [Fact]
    public void Of_a_split_VM_it_tells_which_host_has_what()
    {
        using var ram = Ram();
        using var set = new UnusedSet(Pages);
        using var table = new PageTable(Pages);
        table.Set(new(0, 100), new(PageState.Resident));
        table.Set(new(100, 50), new(PageState.Remote, 1));
        table.Set(new(150, 50), new(PageState.Remote, 0));
        table.Set(new(200, 10), new(PageState.Lost));
        table.Set(new(210, 10), new(PageState.Fetching, 1));
        using var holes = new PageBitmap(Pages);
        table.CopyUnused(holes);
        using var none = new PageBitmap(Pages);
        set.Update(holes, none, holes, null);
        var map = Build(ram, set, table, 10, merge: true);
        Assert.Equal([0, 2, 1, -2, 2, -1, -1, -1], map.Select(r => r.Place));
        Assert.Equal([100UL, 50, 50, 10, 10, 780], map.Take(6).Select(r => r.Pages));
        Assert.Equal([0UL, 50], map[1].RemotePages);
        Assert.Equal(100u, map[0].ResidentPages);
        Assert.Equal(10u, map[3].LostPages);
        Assert.Equal(MemoryKind.NeverTouched, map[5].Kind);
        var whole = Assert.Single(Build(ram, set, table, 1 << 20, merge: false), r => r.FirstPage == 0);
        Assert.Equal([50UL, 60], whole.RemotePages);
    }

    private static List<MemoryMapRange> Build(GuestRam ram, UnusedSet set, PageTable? table, long granule, bool merge)
    {
        var ranges = new List<MemoryMapRange>();
        new MemoryMapBuilder(ram, set, null, table, table is null ? 0 : 2).Build(granule, merge, ranges.Add);
        return ranges;
    }

    private static void Fill(UnusedSet set, PageRange free, PageRange holes)
    {
        using var unused = new PageBitmap(Pages);
        using var ballooned = new PageBitmap(Pages);
        using var never = new PageBitmap(Pages);
        unused.Fill(free, true);
        never.Fill(holes, true);
        unused.Or(never);
        set.Update(unused, ballooned, never, null);
    }

    /// <summary>2000 pages of which the second half is above 4 GiB, and 1000 that the guest does not see.</summary>
    private static GuestRam Ram() => new(
        [new("ram0", 0, 2000, default, new SafeFileHandle(), ""), new("dimm", 2000, 1000, default, new SafeFileHandle(), "")],
        [new(0, 1000 << 12, 0), new(FourGiB, 1000 << 12, 1000 << 12)]);
}
