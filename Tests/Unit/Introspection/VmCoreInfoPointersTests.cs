using System.Text;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

/// <summary>The way from a guest's processors to the description of the kernel that they run.</summary>
public sealed class VmCoreInfoPointersTests
{
    [Theory]
    [InlineData(4)]
    [InlineData(5)]
    public void What_the_running_kernel_points_to_is_found(int levels)
    {
        using var guest = new SyntheticGuest(new() { Levels = levels, LargeLeaves = levels == 4, PhysicalBits = levels == 4 ? 46 : 52 });
        var running = Running(guest);
        Assert.Empty(VmCoreInfoPointers.Find(guest.Memory, [running]));

        // Beside pointers to other things, and twice: the copy that a crash kernel keeps is one more page.
        guest.PointTo(guest.Root, 0x100);
        guest.PointTo(guest.InfoPage, 0xfff8);
        guest.PointTo(guest.InfoPage);
        Assert.Equal([new GuestPhysicalAddress(guest.InfoPage)], VmCoreInfoPointers.Find(guest.Memory, [running]));

        // Whoever runs: a processor in a program, with page table isolation, has a table a page above the kernel's.
        ulong process = guest.Allocate(8192);
        byte[] table = new byte[4096];
        Assert.True(guest.Memory.TryRead(new GuestPhysicalAddress(guest.Root), table));
        guest.Write(process, table);
        Assert.NotEmpty(VmCoreInfoPointers.Find(guest.Memory, [new(0x10, 0, 0, 0), running with { Cr3 = process + 4096 }]));

        // Firmware, and a processor that was not started.
        Assert.Empty(VmCoreInfoPointers.Find(guest.Memory, [new(0x10, 0, 0, 0), running with { Efer = 0 }]));
    }

    [Fact]
    public void Look_alikes_elsewhere_in_memory_are_not_even_looked_at()
    {
        using var guest = new SyntheticGuest(new());
        guest.PointTo(guest.InfoPage);
        for (int i = 0; i <= VmCoreInfoPages.MaxCandidates; i++)
        {
            guest.Write(guest.Allocate(4096), "OSRELEASE=6.1.0-decoy\n"u8);
        }

        Assert.Null(guest.Find(out string reason));
        Assert.Contains("look like", reason, StringComparison.Ordinal);
        var kernel = GuestKernel.TryFind(guest.Ram, guest.Memory, out reason, [Running(guest)]);
        Assert.True(kernel is not null, reason);
        Assert.Equal(guest.InfoPage, kernel.InfoPage.Value);
    }

    [Fact]
    public void A_pointer_to_a_look_alike_does_not_hide_the_kernel()
    {
        using var guest = new SyntheticGuest(new());
        ulong decoy = guest.Allocate(4096);
        guest.Write(decoy, Encoding.ASCII.GetBytes(guest.InfoText(("OSRELEASE", "6.1.0-other"))));
        guest.PointTo(decoy);
        Assert.Equal(guest.InfoPage, GuestKernel.TryFind(guest.Ram, guest.Memory, out _, [Running(guest)])!.InfoPage.Value);

        // Nor do two pointers to different ones.
        guest.PointTo(guest.InfoPage, 8);
        Assert.Equal(guest.InfoPage, GuestKernel.TryFind(guest.Ram, guest.Memory, out _, [Running(guest)])!.InfoPage.Value);
    }

    [Fact]
    public void Tables_made_to_keep_the_reader_busy_end_soon()
    {
        using var guest = new SyntheticGuest(new());

        // All of the image's gigabyte is one small piece of memory, over and over, full of pointers to what looks right but is not.
        ulong look = guest.Allocate(4096);
        guest.Write(look, "OSRELEASE="u8);
        ulong full = guest.Allocate(2 << 20);
        guest.PointTo(look);
        Assert.Single(VmCoreInfoPointers.Find(guest.Memory, [Running(guest)]));
        byte[] pointers = new byte[2 << 20];
        for (int i = 0; i < pointers.Length; i += 8)
        {
            // Each is not mapped: all walks fail at another table.
            BitConverter.TryWriteBytes(pointers.AsSpan(i), 0xffff_9000_0000_0000 + ((ulong)i << 18));
        }

        guest.Write(full, pointers);
        for (ulong at = 0; at < 1UL << 30; at += 2 << 20)
        {
            guest.Map(GuestKernel.KernelMap + at, full, leafLevel: 2);
        }

        Assert.Empty(VmCoreInfoPointers.Find(guest.Memory, [Running(guest)]));
        Assert.Null(GuestKernel.TryFind(guest.Ram, guest.Memory, out string reason, [Running(guest)]));
        Assert.NotEmpty(reason);
    }

    private static GuestProcessor Running(SyntheticGuest guest) => new(0x8005_0033, guest.Root, guest.Layout.Levels == 5 ? 1UL << 12 : 0, 0xd01);
}
