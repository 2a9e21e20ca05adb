using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Tracking;

/// <summary>Which pages are unused, of what kind, and what a look has changed.</summary>
public sealed class UnusedSetTests
{
    private const int Pages = 1000;

    [Fact]
    public void It_tells_the_kinds_apart_and_what_has_changed()
    {
        using var set = new UnusedSet(Pages);
        using var unused = new PageBitmap(Pages);
        using var ballooned = new PageBitmap(Pages);
        using var holes = new PageBitmap(Pages);
        var random = new Random(3);
        var before = new MemoryUse[Pages];
        for (int look = 0; look < 200; look++)
        {
            foreach (var bitmap in new[] { unused, ballooned, holes })
            {
                int first = random.Next(Pages);
                bitmap.Fill(new(first, random.Next(Pages - first + 1)), random.Next(3) != 0);
            }

            unused.Or(ballooned);
            unused.Or(holes);
            var sink = new Sink();
            set.Update(unused, ballooned, holes, sink);
            var now = new MemoryUse[Pages];
            for (int page = 0; page < Pages; page++)
            {
                now[page] = holes[page] ? MemoryUse.NeverTouched : ballooned[page] ? MemoryUse.Ballooned : unused[page] ? MemoryUse.Free : MemoryUse.Used;
                Assert.Equal(now[page], set.UseOf(page));
            }

            Assert.Equal(now.Count(use => use == MemoryUse.NeverTouched), set.NeverTouchedPages);
            Assert.Equal(now.Count(use => use == MemoryUse.Free), set.FreePages);
            Assert.Equal(now.Count(use => use == MemoryUse.Ballooned), set.BalloonedPages);
            if (look == 0)
            {
                Assert.Empty(sink.Runs);
                Assert.Equal(0, set.BecameUsed + set.BecameUnused);
            }
            else
            {
                Assert.Equal(before.Zip(now).Count(p => p.First != MemoryUse.Used && p.Second == MemoryUse.Used), set.BecameUsed);
                Assert.Equal(before.Zip(now).Count(p => p.First == MemoryUse.Used && p.Second != MemoryUse.Used), set.BecameUnused);
                // What changed, and nothing else, brings the old picture to the new one; in order, and no two runs that could be one.
                long end = -1;
                var last = MemoryUse.Used;
                foreach (var (run, use) in sink.Runs)
                {
                    Assert.True(run.First > end || (run.First == end && use != last));
                    Assert.All(Enumerable.Range((int)run.First, (int)run.Count), page => Assert.NotEqual(before[page], use));
                    Array.Fill(before, use, (int)run.First, (int)run.Count);
                    (end, last) = (run.End, use);
                }

                Assert.Equal(now, before);
            }

            before = now;
        }
    }

    [Fact]
    public void Memory_that_is_plugged_in_counts_as_used_until_the_next_look()
    {
        using var set = new UnusedSet(Pages);
        using var unused = new PageBitmap(Pages);
        using var ballooned = new PageBitmap(Pages);
        unused.Fill(new(10, 20), true);
        set.Update(unused, ballooned, null, null);
        set.Resize(2 * Pages);
        Assert.Equal(MemoryUse.Free, set.UseOf(29));
        Assert.Equal(MemoryUse.Used, set.UseOf(Pages + 5));

        using var more = new PageBitmap(2 * Pages);
        using var noneBallooned = new PageBitmap(2 * Pages);
        more.Fill(new(10, 20), true);
        more.Fill(new(Pages, 100), true);
        var sink = new Sink();
        set.Update(more, noneBallooned, null, sink);
        Assert.Equal([(new PageRange(Pages, 100), MemoryUse.Free)], sink.Runs);
        Assert.Equal((120, 100, 0), (set.FreePages, set.BecameUnused, set.BecameUsed));

        set.Resize(Pages);
        set.Update(unused, ballooned, null, null);
        Assert.Equal((20, 0, 0), (set.FreePages, set.BecameUnused, set.BecameUsed));
    }

    [Fact]
    public void A_look_without_holes_knows_no_page_never_touched()
    {
        using var set = new UnusedSet(Pages);
        using var unused = new PageBitmap(Pages);
        using var ballooned = new PageBitmap(Pages);
        unused.Fill(new(10, 20), true);
        set.Update(unused, ballooned, null, null);
        Assert.Equal((0, 20, 0), (set.NeverTouchedPages, set.FreePages, set.BalloonedPages));
    }

    [Fact]
    public void A_look_allocates_nothing()
    {
        using var set = new UnusedSet(Pages);
        using var unused = new PageBitmap(Pages);
        using var ballooned = new PageBitmap(Pages);
        bool fill = false;
        Assert.Equal(0, Allocations.Of(() =>
        {
            unused.Fill(new(0, 500), fill = !fill);
            set.Update(unused, ballooned, ballooned, null);
        }));
    }

    private sealed class Sink : IMemoryUseSink
    {
        public List<(PageRange Pages, MemoryUse Use)> Runs { get; } = [];

        public void Changed(PageRange pages, MemoryUse use) => Runs.Add((pages, use));
    }
}
