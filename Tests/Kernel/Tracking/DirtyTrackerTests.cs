using System.Globalization;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using FCtrans.Kernel.Tests.Child;
using Xunit;

namespace FCtrans.Kernel.Tests.Tracking;

/// <summary>What a process writes into RAM that is a hole for the most part is found, whether it was there when the tracking began or not.</summary>
public sealed class DirtyTrackerTests
{
    private const long Pages = 1 << 20;

    [Fact]
    public void Writes_are_found_wherever_they_fall()
    {
        using var child = new ChildProcess("poll", Pages);
        var random = new Random(6);
        foreach (long page in (long[])[0, 511, 512, 700_000, Pages - 1])
        {
            child.Ask($"write {page} 1");
        }

        using var ram = Ram(child);
        using var tracker = DirtyTracker.Start(ram, child.Pid);
        using var dirty = new PageBitmap(Pages);
        Assert.Equal(0, tracker.Harvest(dirty));
        for (int round = 0; round < 20; round++)
        {
            var written = new SortedSet<long>();
            for (int i = 0; i < 30; i++)
            {
                // Some where nothing was before, some next to others, some again.
                long page = random.Next(3) switch
                {
                    0 => random.NextInt64(Pages),
                    1 => 700_000 + random.Next(600),
                    _ => random.Next(1024),
                };
                child.Ask($"write {page} {round}");
                written.Add(page);
            }

            Assert.Equal(written.Count, tracker.Harvest(dirty));
            foreach (long page in written)
            {
                Assert.True(dirty[page], $"page {page}");
            }

            dirty.Clear();
        }
    }

    [Fact]
    public void What_was_given_back_and_taken_again_is_found()
    {
        using var child = new ChildProcess("poll", Pages);
        child.Ask("write 5000 1");
        using var ram = Ram(child);
        using var tracker = DirtyTracker.Start(ram, child.Pid);
        Assert.Equal(0, Agent.Interop.SparseFile.PunchHole(child.File, 5000 << PageIndex.PageShift, PageIndex.PageSize));
        using var dirty = new PageBitmap(Pages);
        tracker.Harvest(dirty);
        dirty.Clear();
        child.Ask("write 5000 2");
        tracker.Harvest(dirty);
        Assert.True(dirty[5000]);
    }

    [Fact]
    public void Memory_that_was_never_touched_takes_no_page_tables()
    {
        using var child = new ChildProcess("poll", Pages);
        child.Ask("write 12345 1");
        using var ram = Ram(child);
        using var tracker = DirtyTracker.Start(ram, child.Pid);
        tracker.Harvest(null);

        // Entries for all of it would be 8 bytes a page.
        Assert.InRange(PageTableKibibytes(child.Pid), 1, Pages * 8 / 1024 / 8);
    }

    private static GuestRam Ram(ChildProcess child) => new(
        [new RamBlock("ram0", 0, child.Pages, child.Base, Agent.Interop.SparseFile.Open($"/proc/self/fd/{child.File.DangerousGetHandle()}", write: true), "")], []);

    private static long PageTableKibibytes(int processId)
    {
        string line = File.ReadLines($"/proc/{processId}/status").Single(l => l.StartsWith("VmPTE:", StringComparison.Ordinal));
        return long.Parse(line.AsSpan(6).Trim(" \tkB"), CultureInfo.InvariantCulture);
    }
}
