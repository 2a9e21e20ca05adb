using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

public sealed class FreePageScannerTests
{
    private const ulong High = SyntheticGuest.HighStart >> 12;

    [Theory]
    [MemberData(nameof(GuestKernelTests.Layouts), MemberType = typeof(GuestKernelTests))]
    public void Exactly_the_free_pages_are_found(string name, SyntheticLayout layout)
    {
        using var guest = new SyntheticGuest(layout);
        var random = new Random(4711);
        var expected = new HashSet<long>();
        foreach (ulong start in layout.HighBytes > 0 ? new ulong[] { 0, High } : [0])
        {
            ulong end = start + ((start == 0 ? layout.LowBytes : layout.HighBytes) >> 12);
            for (ulong frame = start; frame < end;)
            {
                int order = random.Next(layout.Orders);
                bool fits = (frame & ((1UL << order) - 1)) == 0 && frame + (1UL << order) <= end;
                if (!fits || random.Next(3) == 0)
                {
                    frame++;
                    continue;
                }

                if (FramesOfTheKernel(guest, frame, 1UL << order))
                {
                    frame++;
                    continue;
                }

                guest.SetFree(frame, order);
                for (ulong i = 0; i < 1UL << order; i++)
                {
                    expected.Add(guest.PageOf(frame + i));
                }

                frame += 1UL << order;
            }
        }

        var kernel = guest.Find();
        using var unused = new PageBitmap(guest.Ram.PageCount);
        using var holes = new PageBitmap(guest.Ram.PageCount);
        long neverTouched = NeverTouchedPages.AddTo(guest.Ram, holes);
        long allocated = guest.AllocatedBytes;

        using var paged = new FreePageScanner(kernel, guest.Ram, mayMap: false);
        var result = paged.Scan(unused);
        Assert.Equal(expected.Count, result.BuddyPages);
        Assert.Equal(expected.Count, result.FreePages);
        Assert.Equal(0, result.NeverTouchedPages);
        Assert.Equal(expected, Pages(unused));

        using var mapped = new FreePageScanner(kernel, guest.Ram, mayMap: true);
        result = mapped.Scan(unused);
        Assert.Equal(expected.Count, result.BuddyPages);
        Assert.Equal(neverTouched, result.NeverTouchedPages);
        Assert.Equal(expected.Count(page => !holes[page]), result.FreePages);
        expected.UnionWith(Pages(holes));
        Assert.Equal(expected, Pages(unused));
        Assert.Equal(unused.Count(), result.NeverTouchedPages + result.FreePages);
        Assert.True(allocated == guest.AllocatedBytes, $"{name}: the scan allocated {guest.AllocatedBytes - allocated} bytes of the guest's holes.");
    }

    [Fact]
    public void Only_the_exact_value_heads_a_block()
    {
        using var guest = new SyntheticGuest(new());
        uint[] others = [0, 1, uint.MaxValue, 0xffffff7e, 0xfffffe7f, 0xffff7f7f, 0x7fffff7f, 0xfffffeff & 0xfffffdff];
        for (int i = 0; i < others.Length; i++)
        {
            guest.SetType((ulong)(512 + i), others[i]);
        }

        var result = Scan(guest, out _);
        Assert.Equal(0, result.BuddyPages);
        Assert.Equal(0, result.RefusedBlocks);
    }

    [Theory]
    [InlineData(512UL, 11)]
    [InlineData(512UL, 63)]
    [InlineData(512UL, -1)]
    [InlineData(513UL, 1)]
    [InlineData(512UL, 10)]
    public void Senseless_blocks_stay_used(ulong frame, int order)
    {
        using var guest = new SyntheticGuest(new());
        guest.SetFree(frame, order);
        var result = Scan(guest, out var unused);
        Assert.Equal(1, result.RefusedBlocks);
        Assert.Equal(0, unused);
    }

    [Fact]
    public void A_block_past_the_end_of_ram_stays_used()
    {
        using var guest = new SyntheticGuest(new() { LowBytes = (256 << 20) - 4096 });
        guest.SetFree(((256UL << 20) >> 12) - 1024, 10);
        var result = Scan(guest, out var unused);
        Assert.Equal(1, result.RefusedBlocks);
        Assert.Equal(0, unused);
    }

    [Fact]
    public void Ballooned_pages_are_counted_apart()
    {
        using var guest = new SyntheticGuest(new());
        guest.SetType(600, (uint)guest.Layout.Offline!);
        guest.SetType(High + 5, (uint)guest.Layout.Offline!);
        guest.SetFree(High + 8, 3);
        var result = Scan(guest, out long unused);
        Assert.Equal(2, result.BallooningPages);
        Assert.Equal(8, result.FreePages);
        Assert.Equal(10, unused);
    }

    [Fact]
    public void Memory_that_the_guest_never_accepted_is_unused()
    {
        using var guest = new SyntheticGuest(new() { Buddy = -268435456, Offline = -251658240, Unaccepted = -134217728 });
        guest.SetType(High, (uint)guest.Layout.Unaccepted!);
        guest.SetFree(High + 1024, 10);
        // No head of a block of the largest order: a value that makes no sense there.
        guest.SetType(High + 2048 + 7, (uint)guest.Layout.Unaccepted!);
        var result = Scan(guest, out long unused);
        Assert.Equal(2048, unused);
        Assert.Equal(1024, result.BuddyPages);
        Assert.Equal(1, result.RefusedBlocks);
    }

    [Fact]
    public void Poisoned_pages_are_in_use_even_where_they_once_were_free()
    {
        // A page that the hardware says is bad leaves the allocator: it has no type, and PG_hwpoison among its flags.
        using var guest = new SyntheticGuest(new());
        guest.SetFree(High, 1);
        guest.SetType(High, uint.MaxValue);
        guest.Write(guest.StructPage(High), BitConverter.GetBytes(1UL << 22));
        _ = Scan(guest, out long unused);
        Assert.Equal(0, unused);
    }

    [Fact]
    public void Ballooned_pages_can_be_had_as_a_set_that_rescans_keep_up()
    {
        using var guest = new SyntheticGuest(new());
        guest.SetType(High + 5, (uint)guest.Layout.Offline!);
        guest.SetFree(High + 8, 3);
        using var free = new PageBitmap(guest.Ram.PageCount);
        using var ballooned = new PageBitmap(guest.Ram.PageCount);
        using var written = new PageBitmap(guest.Ram.PageCount);
        using var scanner = new FreePageScanner(guest.Find(), guest.Ram, mayMap: false) { Ballooned = ballooned };
        scanner.AddFree(free);
        Assert.True(ballooned[guest.PageOf(High + 5)]);
        Assert.Equal(1, ballooned.Count());
        guest.SetType(High + 5, uint.MaxValue);
        guest.SetType(High + 6, (uint)guest.Layout.Offline!);
        written.Fill(new(0, written.PageCount), true);
        scanner.Rescan(free, written, null);
        Assert.True(ballooned[guest.PageOf(High + 6)]);
        Assert.Equal(1, ballooned.Count());
    }

    [Fact]
    public void Struct_pages_that_are_not_here_leave_their_pages_used()
    {
        using var guest = new SyntheticGuest(new());
        guest.SetFree(High, 10);
        guest.SetFree(High + 1024, 10);
        // What a page on another host looks like: a hole where the head's structure was.
        guest.PunchHole(guest.StructPage(High) & ~4095UL, 4096);
        var result = Scan(guest, out long unused);
        Assert.Equal(1024, result.BuddyPages);
        Assert.Equal(1024, unused);
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(1UL)]
    [InlineData(3UL)]
    [InlineData(5UL)]
    [InlineData(6UL)]
    public void Sections_that_are_absent_or_offline_stay_used(ulong flags)
    {
        using var guest = new SyntheticGuest(new());
        guest.SetFree(High, 10);
        guest.SetFree(0, 10);
        ulong entry = guest.SectionRoots[0] + ((SyntheticGuest.HighStart >> guest.Layout.SectionBits) * 16);
        guest.Write(entry, BitConverter.GetBytes((guest.ReadWord(entry) & ~0xfffUL) | flags));
        var result = Scan(guest, out long unused);
        Assert.Equal(1024, unused);
        Assert.Equal(1L << (guest.Layout.SectionBits - 12), result.UnknownPages);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_scan_allocates_nothing(bool mayMap)
    {
        using var guest = new SyntheticGuest(new());
        guest.SetFree(High, 10);
        using var scanner = new FreePageScanner(guest.Find(), guest.Ram, mayMap);
        using var unused = new PageBitmap(guest.Ram.PageCount);
        _ = scanner.Scan(unused);
        Assert.Equal(0, Allocations.Of(() => _ = scanner.Scan(unused)));
    }

    private static bool FramesOfTheKernel(SyntheticGuest guest, ulong frame, ulong count)
        => frame <= guest.InfoPage >> 12 && frame + count > 0x80_0000 >> 12 && frame < 1UL << 20;

    private static ScanResult Scan(SyntheticGuest guest, out long unusedPages)
    {
        using var scanner = new FreePageScanner(guest.Find(), guest.Ram, mayMap: false);
        using var unused = new PageBitmap(guest.Ram.PageCount);
        var result = scanner.Scan(unused);
        unusedPages = unused.Count();
        return result;
    }

    private static HashSet<long> Pages(PageBitmap bitmap)
    {
        var pages = new HashSet<long>();
        long from = 0;
        while (bitmap.NextRun(from, long.MaxValue, out PageRange run))
        {
            for (long page = run.First; page < run.End; page++)
            {
                pages.Add(page);
            }

            from = run.End;
        }

        return pages;
    }
}
