using FCtrans.Agent.Introspection;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

public sealed class GuestProcessorTests
{
    private const ulong Paging = 0x8005_0033;
    private const ulong LongMode = 0xd01;

    [Fact]
    public void The_monitors_text_is_understood()
    {
        const string Text = """

            CPU#0
            RAX=ffffffff96c0e6d0 RBX=0000000000000000 RCX=0000000000000000 RDX=0000000000000000
            CR0=80050033 CR2=0000000000584980 CR3=0000000159410000 CR4=00751eb0
            EFER=0000000000000d01

            CPU#1
            CR0=00000010 CR2=0000000000000000 CR3=0000000000000000 CR4=00000000
            EFER=0000000000000000
            CPU#2
            CR0=zz CR3=
            """;
        var processors = GuestProcessor.Parse(Text);
        Assert.Equal([new(0x80050033, 0x159410000, 0x751eb0, 0xd01), new(0x10, 0, 0, 0)], processors);
        Assert.True(processors[0].Paging);
        Assert.False(processors[1].Paging);
        Assert.Empty(GuestProcessor.Parse("Error: no such command"));
    }

    [Theory]
    [InlineData(4)]
    [InlineData(5)]
    public void Only_the_kernel_that_runs_is_believed(int levels)
    {
        using var guest = new SyntheticGuest(new() { Levels = levels, LargeLeaves = levels == 4, PhysicalBits = levels == 4 ? 46 : 52 });
        var kernel = guest.Find();
        ulong cr4 = levels == 5 ? 1UL << 12 : 0;
        var running = new GuestProcessor(Paging, guest.Root, cr4, LongMode);
        var stopped = new GuestProcessor(0x10, 0, 0, 0);

        // A process: other tables with the same upper half. Under page table isolation its program side is a page above.
        ulong process = guest.Allocate(8192);
        byte[] table = new byte[4096];
        Assert.True(guest.Memory.TryRead(new FCtrans.Agent.Memory.GuestPhysicalAddress(guest.Root), table));
        guest.Write(process, table);

        Assert.True(GuestProcessor.Run([running, stopped], kernel, out _));
        Assert.True(GuestProcessor.Run([running with { Cr3 = process | 0x7 }], kernel, out _));
        Assert.True(GuestProcessor.Run([running with { Cr3 = process + 4096 }], kernel, out _));

        Assert.False(GuestProcessor.Run([stopped, stopped], kernel, out string reason));
        Assert.Contains("no processor", reason, StringComparison.Ordinal);
        Assert.False(GuestProcessor.Run([running, running with { Cr3 = 0x5000 }], kernel, out reason));
        Assert.Contains("something else", reason, StringComparison.Ordinal);
        Assert.False(GuestProcessor.Run([running with { Cr3 = 0xff_ffff_f000 }], kernel, out _));
        Assert.False(GuestProcessor.Run([running with { Efer = 0 }], kernel, out _));
        Assert.False(GuestProcessor.Run([running with { Cr4 = cr4 ^ (1UL << 12) }], kernel, out _));
    }

    [Fact]
    public void Nothing_is_free_while_something_else_runs()
    {
        using var guest = new SyntheticGuest(new());
        guest.SetFree(SyntheticGuest.HighStart >> 12, 10);
        using var unused = new PageBitmap(guest.Ram.PageCount);
        var now = new GuestProcessor(Paging, guest.Root, 0, LongMode);
        using var pages = UnusedPages.Open(guest.Ram, mayMap: false, () => [now]);
        Assert.Equal(1024, pages.Refresh(unused).Free);

        // The kernel is still in memory, whole; but the processor is in the firmware, in real mode.
        now = new GuestProcessor(0x10, 0, 0, 0);
        var figures = pages.Refresh(unused);
        Assert.Equal(UnusedFigures.NeverTouchedOnly, figures.Method);
        Assert.Contains("no processor", figures.Reason, StringComparison.Ordinal);
        Assert.Equal(0, unused.Count());
    }
}
