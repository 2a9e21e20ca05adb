using FCtrans.Agent.Introspection;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

/// <summary>Which pages the guest's kernel itself holds for hot, by its own numbers of the page flags.</summary>
public sealed class GuestLruTests
{
    private const ulong High = SyntheticGuest.HighStart >> 12;
    private const ulong Lru = 1 << 5;
    private const ulong Active = 1 << 8;
    private const ulong Referenced = 1 << 2;

    [Fact]
    public void Pages_that_are_active_or_referenced_on_a_list_are_hot()
    {
        using var guest = new SyntheticGuest(new());
        Flags(guest, High + 1, Lru | Active);
        Flags(guest, High + 2, Lru);
        Flags(guest, High + 3, Active);
        Flags(guest, High + 4, Lru | Referenced);
        // A compound page: its tails say only where its head is.
        Flags(guest, High + 8, Lru | Active);
        for (ulong tail = High + 9; tail < High + 12; tail++)
        {
            guest.Write(guest.StructPage(tail) + 8, BitConverter.GetBytes(0xffff_ea00_0000_0001UL));
        }

        Flags(guest, 700, Lru | Active);
        Flags(guest, 701, Lru | Active);
        using var unused = new PageBitmap(guest.Ram.PageCount);
        using var hot = new PageBitmap(guest.Ram.PageCount);
        unused[guest.PageOf(701)] = true;
        var lru = GuestLru.TryOpen(guest.Find(), Types());
        Assert.NotNull(lru);
        lru.AddHot(guest.Ram, unused, hot);
        ulong[] frames = [700, High + 1, High + 4, High + 8, High + 9, High + 10, High + 11];
        Assert.All(frames, frame => Assert.True(hot[guest.PageOf(frame)], $"{frame:x}"));
        Assert.Equal(frames.Length, hot.Count());
        // Of a part only.
        hot.Clear();
        lru.AddHot(guest.Ram, new(guest.PageOf(High + 4), 6), unused, hot);
        Assert.Equal(3, hot.Count());
        Assert.All((ulong[])[High + 4, High + 8, High + 9], frame => Assert.True(hot[guest.PageOf(frame)], $"{frame:x}"));
    }

    [Fact]
    public void A_kernel_that_does_not_name_its_flags_tells_nothing()
    {
        using var guest = new SyntheticGuest(new());
        Assert.Null(GuestLru.TryOpen(guest.Find()));
        Assert.Null(GuestLru.TryOpen(guest.Find(), Types(flagsAt: 60 * 8)));
    }

    private static void Flags(SyntheticGuest guest, ulong frame, ulong flags) => guest.Write(guest.StructPage(frame), BitConverter.GetBytes(flags));

    private static Btf Types(uint flagsAt = 0)
    {
        var writer = new BtfTests.Writer();
        writer.Add(1, "unsigned long", 8, extra: [64]);
        writer.Add(4, "page", 64, ("flags", 1, flagsAt), ("compound_head", 1, 64));
        writer.AddEnum("pageflags", ("PG_referenced", 2), ("PG_lru", 5), ("PG_active", 8));
        Assert.True(Btf.TryParse(writer.Build(), out var types));
        return types;
    }
}
