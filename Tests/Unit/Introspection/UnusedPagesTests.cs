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

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_look_at_what_was_written_comes_to_what_a_full_one_comes_to(bool mayMap)
    {
        using var guest = new SyntheticGuest(new());
        const ulong High = SyntheticGuest.HighStart >> 12;
        using var unused = new PageBitmap(guest.Ram.PageCount);
        using var expected = new PageBitmap(guest.Ram.PageCount);
        using var since = new PageBitmap(guest.Ram.PageCount);
        using var pages = UnusedPages.Open(guest.Ram, mayMap);
        var random = new Random(31);
        // What a guest does: a page is touched only when it is in use.
        byte[] data = new byte[4096];
        var kinds = new int[4096];
        for (int round = 0; round < 80; round++)
        {
            since.Clear();
            for (int i = random.Next(8); i > 0; i--)
            {
                int page = random.Next(kinds.Length);
                ulong frame = High + (ulong)page;
                kinds[page] = random.Next(4);
                if (kinds[page] == 0)
                {
                    guest.SetFree(frame, 0);
                }
                else
                {
                    guest.SetType(frame, kinds[page] == 1 ? (uint)guest.Layout.Offline! : uint.MaxValue);
                }

                since[guest.PageOf(guest.StructPage(frame) >> 12)] = true;
                if (kinds[page] == 3)
                {
                    guest.Write(frame << 12, data);
                    since[guest.PageOf(frame)] = true;
                }
            }

            // A look by whoever does not know what was written must not mislead the next one that does.
            if (round % 9 == 8)
            {
                _ = pages.Refresh(unused);
            }

            var figures = pages.Refresh(unused, round == 0 ? null : since);
            using var fresh = UnusedPages.Open(guest.Ram, mayMap);
            var full = fresh.Refresh(expected);
            Assert.Equal(expected.Count(), unused.Count());
            expected.AndNot(unused);
            Assert.Equal(0, expected.Count());
            Assert.Equal((full.Used, full.Ballooned), (figures.Used, figures.Ballooned));
        }
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
