using System.Text;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
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
        using var unused = new PageBitmap(guest.Ram.PageCount);
        using var since = new PageBitmap(guest.Ram.PageCount);
        using var pages = UnusedPages.Open(guest.Ram, mayMap);
        var random = new Random(31);
        var kinds = new int[4096];
        for (int round = 0; round < 80; round++)
        {
            since.Clear();
            Change(guest, random, kinds, page => since[page] = true);

            // A look by whoever does not know what was written must not mislead the next one that does.
            if (round % 9 == 8)
            {
                _ = pages.Refresh(unused);
            }

            AssertAsFull(guest, mayMap, pages.Refresh(unused, round == 0 ? null : since), unused);
        }
    }

    [Fact]
    public void Looks_and_visits_by_a_watch_come_to_what_full_ones_come_to()
    {
        using var guest = new SyntheticGuest(new());
        using var unused = new PageBitmap(guest.Ram.PageCount);
        using var pages = UnusedPages.Open(guest.Ram, mayMap: false);
        var protection = new Protection();
        using var watch = new WriteWatch(guest.Ram.PageCount, protection);
        pages.Watch = watch;
        var random = new Random(32);
        var kinds = new int[4096];
        var before = new HashSet<long>();
        var now = new HashSet<long>();
        for (int round = 0; round < 120; round++)
        {
            var changed = new HashSet<ulong>();
            Change(guest, random, kinds, page => watch.Wrote(new(page, 1)), changed);
            protection.Refuses = random.Next(5) == 0;
            AssertAsFull(guest, mayMap: false, pages.Refresh(unused), unused);

            // Somebody else's look in between; and a guest that goes on before the blocks are visited.
            if (round % 7 == 6)
            {
                Change(guest, random, kinds, page => watch.Wrote(new(page, 1)), changed);
                AssertAsFull(guest, mayMap: false, pages.Refresh(unused), unused);
            }

            var visited = new Visited();
            pages.VisitFree(unused, visited, changedOnly: true);
            now = [.. Enumerable.Range(0, kinds.Length).Where(p => kinds[p] == 0 && guest.IsFree(s_high + (ulong)p)).Select(p => guest.PageOf(s_high + (ulong)p))];
            Assert.All(visited.Pages, page => Assert.Contains(page, now));

            // Whatever is left out was visited twice, unchanged.
            foreach (long page in now.Except(visited.Pages))
            {
                Assert.Contains(page, before);
                Assert.DoesNotContain(changed, frame => guest.PageOf(frame) == page);
            }

            Assert.Equal(unused.Count(), now.Count + Enumerable.Range(0, kinds.Length).Count(p => kinds[p] == 1));
            before = now;
        }

        Assert.True(protection.Pages > 0);
    }

    [Fact]
    public void A_watch_leaves_alone_what_has_not_changed()
    {
        using var guest = new SyntheticGuest(new());
        guest.SetFree(s_high, 10);
        guest.SetFree(s_high + 8192, 10);
        using var unused = new PageBitmap(guest.Ram.PageCount);
        using var pages = UnusedPages.Open(guest.Ram, mayMap: false);
        using var watch = new WriteWatch(guest.Ram.PageCount, new Protection());
        pages.Watch = watch;
        long[] Visit()
        {
            Assert.Equal(2048, pages.Refresh(unused).Free);
            var visited = new Visited();
            pages.VisitFree(unused, visited, changedOnly: true);
            return [.. visited.Pages];
        }

        long[] both = [guest.PageOf(s_high), guest.PageOf(s_high + 8192)];
        Assert.Equal(both, Visit());
        Assert.Equal(both, Visit());
        Assert.Empty(Visit());
        watch.Wrote(new(guest.PageOf(guest.StructPage(s_high + 8192 + 1000) >> 12), 1));
        Assert.Equal(both[1..], Visit());

        // It was protected and written: it rests for a while, and counts as written until it has been protected again.
        int visits = 0;
        while (Visit() is { Length: > 0 } visited)
        {
            Assert.Equal(both[1..], visited);
            Assert.True(++visits <= WriteWatch.RestingLooks + 2);
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

    [Fact]
    public void Where_the_kernels_own_pages_are_a_look_needs_no_others()
    {
        using var guest = new SyntheticGuest(new());
        guest.PointTo(guest.InfoPage);
        guest.SetFree(s_high, 10);
        guest.SetFree(s_high + 9000, 3);
        using var unused = new PageBitmap(guest.Ram.PageCount);
        using var kernels = new PageBitmap(guest.Ram.PageCount);
        var processor = new GuestProcessor(0x8005_0033, guest.Root, 0, 0xd01);
        using (var pages = UnusedPages.Open(guest.Ram, mayMap: true, () => [processor]))
        {
            _ = pages.Refresh(unused);
            pages.KernelPages(kernels, unused);
        }

        // All else lies on another host: it reads as zeros.
        foreach (var segment in guest.Ram.Segments.ToArray())
        {
            for (ulong at = segment.Start; at < segment.Start + segment.Bytes; at += 4096)
            {
                if (!kernels[guest.PageOf(at >> 12)])
                {
                    guest.PunchHole(at, 4096);
                }
            }
        }

        using var there = UnusedPages.Open(guest.Ram, mayMap: false, () => [processor]);
        var figures = there.Refresh(unused);
        Assert.Equal((UnusedFigures.Buddy, ""), (figures.Method, figures.Reason));
        Assert.Equal(1024 + 8, figures.Free);
    }

    private static readonly ulong s_high = SyntheticGuest.HighStart >> 12;

    /// <summary>What a guest does: a page is touched only when it is in use.</summary>
    private static void Change(SyntheticGuest guest, Random random, int[] kinds, Action<long> wrote, HashSet<ulong>? changed = null)
    {
        for (int i = random.Next(8); i > 0; i--)
        {
            int page = random.Next(kinds.Length);
            ulong frame = s_high + (ulong)page;
            wrote(guest.PageOf(guest.StructPage(frame) >> 12));
            changed?.Add(frame);
            kinds[page] = random.Next(4);
            if (kinds[page] == 0)
            {
                guest.SetFree(frame, 0);
            }
            else
            {
                guest.SetType(frame, kinds[page] == 1 ? (uint)guest.Layout.Offline! : uint.MaxValue);
            }

            if (kinds[page] == 3)
            {
                wrote(guest.PageOf(frame));
                guest.Write(frame << 12, new byte[4096]);
            }
        }
    }

    private static void AssertAsFull(SyntheticGuest guest, bool mayMap, UnusedFigures figures, PageBitmap unused)
    {
        using var expected = new PageBitmap(guest.Ram.PageCount);
        using var fresh = UnusedPages.Open(guest.Ram, mayMap);
        var full = fresh.Refresh(expected);
        Assert.Equal(expected.Count(), unused.Count());
        expected.AndNot(unused);
        Assert.Equal(0, expected.Count());
        Assert.Equal((full.Used, full.Ballooned), (figures.Used, figures.Ballooned));
    }

    private sealed class Protection : IWriteProtection
    {
        public bool Refuses { get; set; }

        public long Pages { get; private set; }

        public long Protect(PageRange pages, WriteWatch watch)
        {
            if (Refuses)
            {
                return 0;
            }

            // Not all of them: somebody else owns the next.
            long count = Math.Min(pages.Count, 5);
            watch.Protected(new(pages.First, count));
            Pages += count;
            return count;
        }
    }

    private sealed class Visited : IFreeBlockSink
    {
        public List<long> Pages { get; } = [];

        public void Found(ulong frame, long page, int order) => Pages.Add(page);
    }
}
