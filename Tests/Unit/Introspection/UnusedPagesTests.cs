using System.Text;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

public sealed class UnusedPagesTests
{
    [Fact]
    public void A_kernel_that_reboots_is_lost_and_found_again()
    {
        using var guest = new SyntheticGuest(new());
        guest.SetFree(SyntheticGuest.HighStart >> 12, 10);
        using var unused = new PageBitmap(guest.Ram.PageCount);
        using var pages = UnusedPages.Open(guest.Ram, mayMap: true);
        var figures = pages.Refresh(unused);
        Assert.Equal(UnusedFigures.Buddy, figures.Method);
        Assert.Equal(guest.Layout.Release, figures.GuestKernel);
        Assert.True(figures.FindMilliseconds > 0);
        Assert.Equal(figures.Total, figures.Used + unused.Count());

        byte[] info = Encoding.ASCII.GetBytes(guest.InfoText());
        guest.Write(guest.InfoPage, new byte[4096]);
        figures = pages.Refresh(unused);
        Assert.Equal(UnusedFigures.NeverTouchedOnly, figures.Method);
        Assert.NotEmpty(figures.Reason);
        Assert.Equal("", figures.GuestKernel);
        Assert.Equal(0, figures.Free);
        Assert.Equal(figures.NeverTouched, unused.Count());

        guest.Write(0x5000, info);
        // A search is not repeated at once: wait until it is due.
        Assert.True(SpinWait.SpinUntil(() => (figures = pages.Refresh(unused)).Method == UnusedFigures.Buddy, TimeSpan.FromSeconds(30)));
        Assert.Equal(0x5000UL, pages.Kernel!.InfoPage.Value);
    }

    [Fact]
    public void On_a_paged_host_holes_are_not_unused()
    {
        using var guest = new SyntheticGuest(new());
        guest.SetFree(SyntheticGuest.HighStart >> 12, 10);
        using var unused = new PageBitmap(guest.Ram.PageCount);
        using var pages = UnusedPages.Open(guest.Ram, mayMap: false);
        var figures = pages.Refresh(unused);
        Assert.Equal(0, figures.NeverTouched);
        Assert.Equal(1024, figures.Free);
        Assert.Equal(1024, unused.Count());
    }

    [Fact]
    public void The_kernels_own_pages_are_named()
    {
        using var guest = new SyntheticGuest(new());
        using var unused = new PageBitmap(guest.Ram.PageCount);
        using var bitmap = new PageBitmap(guest.Ram.PageCount);
        using var pages = UnusedPages.Open(guest.Ram, mayMap: true);
        _ = pages.Refresh(unused);
        pages.KernelPages(bitmap, unused);
        Assert.True(bitmap[guest.PageOf(guest.InfoPage >> 12)]);
        Assert.True(bitmap[guest.PageOf(guest.Root >> 12)]);
        Assert.True(bitmap[guest.PageOf(guest.StructPage(0) >> 12)]);
        Assert.True(bitmap[guest.PageOf(guest.StructPage(SyntheticGuest.HighStart >> 12) >> 12)]);
        // Struct pages of 512 MiB, 2 MiB of image, and some tables: not the guest's data.
        Assert.InRange(bitmap.Count(), 2048 + 512, 2048 + 512 + 64);
    }
}
