using FCtrans.Agent.Introspection;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

public sealed class RescanTests
{
    private const ulong High = SyntheticGuest.HighStart >> 12;

    public static TheoryData<SyntheticLayout> Layouts =>
    [
        new(),
        new() { Levels = 5, PhysicalBits = 52, LargeLeaves = false },
        new() { PageSize = 56, LargeLeaves = false, MapcountOffset = 44, PrivateOffset = 32 },
        new() { SectionBits = 24, LargeLeaves = false, Orders = 13 },
        new() { Orders = 5 },
    ];

    [Theory]
    [MemberData(nameof(Layouts))]
    public void It_comes_to_what_a_full_scan_comes_to(SyntheticLayout layout)
    {
        using var guest = new SyntheticGuest(layout);
        var kernel = guest.Find();
        using var scanner = new FreePageScanner(kernel, guest.Ram, mayMap: true);
        using var full = new FreePageScanner(kernel, guest.Ram, mayMap: false);
        using var free = new PageBitmap(guest.Ram.PageCount);
        using var expected = new PageBitmap(guest.Ram.PageCount);
        using var written = new PageBitmap(guest.Ram.PageCount);
        using var holes = new PageBitmap(guest.Ram.PageCount);
        _ = NeverTouchedPages.AddTo(guest.Ram, holes);
        var random = new Random(99);
        var heads = new HashSet<ulong>();
        for (int round = 0; round < 60; round++)
        {
            written.Clear();
            for (int i = random.Next(12); i > 0; i--)
            {
                ulong frame = random.Next(2) == 0 ? 48UL << 10 : High;
                int order = random.Next(layout.Orders);
                frame += (ulong)random.Next(8192) & ~((1UL << order) - 1);
                if (heads.Count > 0 && random.Next(2) == 0)
                {
                    frame = heads.ElementAt(random.Next(heads.Count));
                    heads.Remove(frame);
                    guest.SetType(frame, uint.MaxValue);
                }
                else
                {
                    heads.Add(frame);
                    guest.SetFree(frame, order);
                }

                ulong at = guest.StructPage(frame);
                written[guest.PageOf(at >> 12)] = true;
                written[guest.PageOf((at + (ulong)layout.PageSize - 1) >> 12)] = true;
            }

            long before = free.Count();
            var result = scanner.Rescan(free, written, round % 2 == 0 ? holes : null);
            expected.Clear();
            _ = full.Scan(expected);
            Assert.Equal(expected.Count(), free.Count());
            expected.AndNot(free);
            Assert.Equal(0, expected.Count());
            Assert.Equal(free.Count() - before, result.AddedPages);
        }
    }

    [Fact]
    public void What_was_not_written_is_not_looked_at()
    {
        using var guest = new SyntheticGuest(new());
        guest.SetFree(High, 10);
        using var scanner = new FreePageScanner(guest.Find(), guest.Ram, mayMap: false);
        using var free = new PageBitmap(guest.Ram.PageCount);
        using var written = new PageBitmap(guest.Ram.PageCount);
        _ = scanner.AddFree(free);
        written[guest.PageOf(High + 3)] = true;
        Assert.Equal(new RescanResult(0, 0, 0), scanner.Rescan(free, written, null) with { Milliseconds = 0 });
        written[guest.PageOf(guest.StructPage(High + 5) >> 12)] = true;
        Assert.Equal(1, scanner.Rescan(free, written, null).Groups);
        Assert.Equal(1024, free.Count());
    }

    [Fact]
    public void A_section_that_goes_away_is_used()
    {
        using var guest = new SyntheticGuest(new());
        guest.SetFree(High, 10);
        using var scanner = new FreePageScanner(guest.Find(), guest.Ram, mayMap: false);
        using var free = new PageBitmap(guest.Ram.PageCount);
        using var written = new PageBitmap(guest.Ram.PageCount);
        _ = scanner.AddFree(free);
        guest.Write(guest.SectionRoots[0] + ((SyntheticGuest.HighStart >> guest.Layout.SectionBits) * 16), new byte[8]);
        Assert.Equal(-1024, scanner.Rescan(free, written, null).AddedPages);
        Assert.Equal(0, free.Count());
    }

    [Fact]
    public void It_allocates_nothing()
    {
        using var guest = new SyntheticGuest(new());
        using var scanner = new FreePageScanner(guest.Find(), guest.Ram, mayMap: true);
        using var free = new PageBitmap(guest.Ram.PageCount);
        using var written = new PageBitmap(guest.Ram.PageCount);
        written.Fill(new(0, written.PageCount), true);
        _ = scanner.Rescan(free, written, null);
        Assert.Equal(0, Allocations.Of(() => _ = scanner.Rescan(free, written, null)));
    }
}
