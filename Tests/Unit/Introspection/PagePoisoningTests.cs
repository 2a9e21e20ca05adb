using FCtrans.Agent.Introspection;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

public sealed class PagePoisoningTests
{
    [Theory]
    [InlineData("console=ttyS0 quiet", null)]
    [InlineData("console=ttyS0 page_poison=1 quiet", "page_poison=1")]
    [InlineData("page-poison=on", "page-poison=on")]
    [InlineData("page_poison=Y", "page_poison=Y")]
    [InlineData("page_poison=0", null)]
    [InlineData("page_poison=1 page_poison=off", null)]
    [InlineData("page_poison=1 debug_pagealloc=off", "page_poison=1")]
    [InlineData("debug_pagealloc=on", "debug_pagealloc=on")]
    [InlineData("debug_pagealloc", null)]
    [InlineData("init_on_free=1", null)]
    [InlineData("quiet -- page_poison=1", null)]
    [InlineData("", null)]
    public void The_command_line_says_it(string commandLine, string? expected)
        => Assert.Equal(expected, PagePoisoning.OptionIn(commandLine));

    [Theory]
    [InlineData(0xaa, true)]
    [InlineData(0x00, false)]
    [InlineData(0x55, false)]
    public void Free_pages_say_it_where_the_command_line_cannot_be_read(byte content, bool poisoned)
    {
        using var guest = new SyntheticGuest(new());
        ulong frame = (SyntheticGuest.HighStart >> 12) + 1024;
        guest.SetFree(frame, 10);
        byte[] page = new byte[4096];
        Array.Fill(page, content);
        guest.Write((frame + 77) << 12, page);
        using var unused = new PageBitmap(guest.Ram.PageCount);
        using var pages = UnusedPages.Open(guest.Ram, mayMap: true);
        var figures = pages.Refresh(unused);
        Assert.Equal(poisoned ? UnusedFigures.NeverTouchedOnly : UnusedFigures.Buddy, figures.Method);
        Assert.Equal(!poisoned, unused[guest.PageOf(frame + 77)]);
        Assert.Equal(poisoned, figures.Reason.Contains("checks the content", StringComparison.Ordinal));
        Assert.Equal(guest.Layout.Release, figures.GuestKernel);
    }

    [Fact]
    public void The_pattern_in_used_memory_says_nothing()
    {
        using var guest = new SyntheticGuest(new());
        guest.SetFree((SyntheticGuest.HighStart >> 12) + 1024, 10);
        byte[] page = new byte[4096];
        Array.Fill(page, (byte)0xaa);
        guest.Write(SyntheticGuest.HighStart + 0x3000, page);
        using var unused = new PageBitmap(guest.Ram.PageCount);
        using var pages = UnusedPages.Open(guest.Ram, mayMap: true);
        Assert.Equal(UnusedFigures.Buddy, pages.Refresh(unused).Method);
    }
}
