using System.Text;
using FCtrans.Agent.Introspection;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

public sealed class GuestKernelTests
{
    public static TheoryData<string, SyntheticLayout> Layouts => new()
    {
        { "Linux 6.1, 4 levels", new() },
        { "Linux 6.1, 5 levels, 4 KiB leaves", new() { Levels = 5, PhysicalBits = 52, LargeLeaves = false } },
        { "Linux 6.11: the type's flags at the top", new() { Buddy = -1073741825, Offline = -536870913 } },
        { "Linux 6.16 and later: unaccepted memory, a section flag more", new() { Buddy = -268435456, Offline = -251658240, Unaccepted = -134217728, SectionFlags = 0x28 } },
        { "the type written as an unsigned number", new() { Buddy = 0xf000_0000, Offline = 0xf100_0000 } },
        { "Linux 6.12: the type in the top byte", new() { Levels = 5, PhysicalBits = 52, Buddy = -268435456, Offline = -251658240 } },
        { "Linux 4.18", new() { Release = "4.18.0-80.el8.x86_64", SectionSize = 32, SectionFlags = 0, Offline = null } },
        { "section flags up to bit 5", new() { SectionFlags = 0x38 } },
        { "small sections, more orders", new() { SectionBits = 24, LargeLeaves = false, Orders = 13 } },
        { "one flat array of sections", new() { Flat = true, PhysicalBits = 36 } },
        { "56-byte struct pages that straddle pages", new() { PageSize = 56, LargeLeaves = false, MapcountOffset = 44, PrivateOffset = 32 } },
        { "80-byte struct pages", new() { PageSize = 80, LargeLeaves = false } },
        { "the kernel moved in physical memory", new() { PhysicalBase = 0x200_0000 } },
        { "the kernel moved downwards", new() { PhysicalBase = -0x80_0000 } },
        { "nothing above 4 GiB", new() { HighBytes = 0 } },
    };

    [Theory]
    [MemberData(nameof(Layouts))]
    public void Every_layout_is_found_and_believed(string name, SyntheticLayout layout)
    {
        using var guest = new SyntheticGuest(layout);
        var kernel = guest.Find(out string reason);
        Assert.True(kernel is not null, $"{name}: {reason}");
        Assert.Equal(layout.Release, kernel.Release);
        Assert.Equal(guest.InfoPage, kernel.InfoPage.Value);
        Assert.True(kernel.IsStillThere(out _));
    }

    [Theory]
    [InlineData("PAGESIZE", "65536", "4096")]
    [InlineData("PAGESIZE", null, "4096")]
    [InlineData("NUMBER(sme_mask)", "140737488355328", "encrypted")]
    [InlineData("NUMBER(phys_base)", "12288", "page tables")]
    [InlineData("NUMBER(phys_base)", "123", "page tables")]
    [InlineData("NUMBER(phys_base)", null, "page tables")]
    [InlineData("NUMBER(pgtable_l5_enabled)", "1", "page tables")]
    [InlineData("SYMBOL(init_top_pgt)", "1000", "page tables")]
    [InlineData("SYMBOL(mem_section)", null, "sparse")]
    [InlineData("SYMBOL(mem_section)", "ffffffffffffff01", "sparse")]
    [InlineData("SYMBOL(mem_section)", "ffffc00000000000", "page structures")]
    [InlineData("LENGTH(mem_section)", "77", "LENGTH(mem_section)")]
    [InlineData("LENGTH(mem_section)", "18446744073709551615", "LENGTH(mem_section)")]
    [InlineData("SIZE(mem_section)", "0", "SIZE(mem_section)")]
    [InlineData("NUMBER(SECTION_SIZE_BITS)", "64", "SECTION_SIZE_BITS")]
    [InlineData("NUMBER(MAX_PHYSMEM_BITS)", "99", "MAX_PHYSMEM_BITS")]
    [InlineData("SIZE(page)", "0", "SIZE(page)")]
    [InlineData("SIZE(page)", "100000", "SIZE(page)")]
    [InlineData("OFFSET(page._mapcount)", "64", "_mapcount")]
    [InlineData("OFFSET(page.private)", "60", "private")]
    [InlineData("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", "-1", "BUDDY")]
    [InlineData("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", "0", "BUDDY")]
    [InlineData("LENGTH(zone.free_area)", "60", "free_area")]
    [InlineData("SYMBOL(init_uts_ns)", null, "init_uts_ns")]
    [InlineData("SYMBOL(init_uts_ns)", "ffffffff80000000", "read")]
    public void What_makes_no_sense_is_refused_with_its_reason(string key, string? value, string expected)
    {
        using var guest = new SyntheticGuest(new(), withInfo: false);
        guest.Write(guest.InfoPage, Encoding.ASCII.GetBytes(guest.InfoText((key, value))));
        Assert.Null(guest.Find(out string reason));
        Assert.Contains(expected, reason, StringComparison.Ordinal);
    }

    [Fact]
    public void A_guest_without_a_kernel_is_told_apart()
    {
        using var guest = new SyntheticGuest(new(), withInfo: false);
        Assert.Null(guest.Find(out string reason));
        Assert.Contains("no Linux kernel", reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Decoys_and_remains_do_not_hide_the_kernel()
    {
        using var guest = new SyntheticGuest(new());
        guest.Write(0x1000, "OSRELEASE="u8);
        guest.Write(0x2000, Encoding.ASCII.GetBytes(guest.InfoText(("NUMBER(phys_base)", "4096"))));
        guest.Write(0x3000, Encoding.ASCII.GetBytes(guest.InfoText(("OSRELEASE", "9.9.9-other"))));
        guest.Write(0x4000, Encoding.ASCII.GetBytes(guest.InfoText()));
        var kernel = guest.Find();
        Assert.Equal(guest.Layout.Release, kernel.Release);
    }

    [Fact]
    public void Two_kernels_that_both_hold_together_are_not_believed()
    {
        using var guest = new SyntheticGuest(new());
        guest.Write(0x3000, Encoding.ASCII.GetBytes(guest.InfoText(("LENGTH(zone.free_area)", "10"))));
        Assert.Null(guest.Find(out string reason));
        Assert.Contains("two kernels", reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Remains_that_lie_in_free_memory_are_not_believed()
    {
        using var guest = new SyntheticGuest(new());
        guest.SetFree(guest.InfoPage >> 12, 0);
        Assert.Null(guest.Find(out string reason));
        Assert.Contains("is free", reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Too_many_look_alikes_are_refused()
    {
        using var guest = new SyntheticGuest(new());
        for (ulong i = 0; i < 80; i++)
        {
            guest.Write(0x10000 + (i * 4096), "OSRELEASE=x\n"u8);
        }

        Assert.Null(guest.Find(out string reason));
        Assert.Contains("look like", reason, StringComparison.Ordinal);
    }

    [Fact]
    public void A_kernel_that_goes_away_is_noticed()
    {
        using var guest = new SyntheticGuest(new());
        var kernel = guest.Find();
        guest.Write(guest.InfoPage + 12, "X"u8);
        Assert.False(kernel.IsStillThere(out string reason));
        Assert.Contains("gone", reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Page_tables_that_are_overwritten_are_noticed()
    {
        using var guest = new SyntheticGuest(new());
        var kernel = guest.Find();
        guest.Write(guest.Root, new byte[4096]);
        Assert.False(kernel.IsStillThere(out string reason));
        Assert.Contains("page tables are gone", reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Looking_for_a_kernel_touches_no_hole()
    {
        using var guest = new SyntheticGuest(new());
        long before = guest.AllocatedBytes;
        _ = guest.Find();
        Assert.Equal(before, guest.AllocatedBytes);
    }
}
