using FCtrans.Agent.Injection;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Kernel.Tests.Child;
using Xunit;

namespace FCtrans.Kernel.Tests.Interop;

/// <summary>The harvest of written pages is exact: nothing missing, nothing more.</summary>
public sealed class PagemapScanTests
{
    [Fact]
    public void Each_harvest_has_exactly_what_was_written_since_the_last()
    {
        using var child = new ChildProcess("poll", pages: 8192);
        Assert.True(PagemapScan.Supported());
        child.Ask("write 1 1");
        using var uffd = OpenForTracking(child);
        using var scan = new PagemapScan(child.Pid);

        // The first arms everything and reports all of it, touched or not.
        Assert.Equal(8192, Harvest(child, scan).Count);
        Assert.Empty(Harvest(child, scan));

        var random = new Random(1);
        for (int round = 0; round < 20; round++)
        {
            var written = new SortedSet<long>();
            for (int i = 0; i < 50; i++)
            {
                long page = random.Next(8192);
                child.Ask($"write {page} {round}");
                written.Add(page);
                child.Ask($"read {random.Next(8192)}");
            }

            Assert.Equal(written, Harvest(child, scan, regionsAtOnce: 1 + round));
        }

        Assert.Empty(Harvest(child, scan));
    }

    [Fact]
    public void Writes_to_pages_never_touched_before_are_seen()
    {
        using var child = new ChildProcess("poll", pages: 4096);
        using var uffd = OpenForTracking(child);
        using var scan = new PagemapScan(child.Pid);
        Harvest(child, scan);
        child.Ask("write 4000 5");
        Assert.Equal([4000L], Harvest(child, scan));

        // Armed nothing: the same again.
        child.Ask("write 9 5");
        var position = child.Base;
        var regions = new PageRegion[4];
        Assert.Equal(1, scan.PeekWritten(ref position, child.Base + child.Bytes, regions));
        Assert.Equal([9L], Harvest(child, scan));
    }

    [Fact]
    public void Nothing_is_lost_while_threads_write()
    {
        using var child = new ChildProcess("poll", pages: 512);
        using var uffd = OpenForTracking(child);
        using var scan = new PagemapScan(child.Pid);
        Harvest(child, scan);
        child.Ask("writers 2 0 512");

        // A copy that takes each harvested page after the harvest is complete once the writers stand still: what pre-copy is.
        var copy = new byte[child.Bytes];
        var clock = System.Diagnostics.Stopwatch.StartNew();

        // Harvests that have something: on a busy machine hundreds fit in before the writers have written once.
        for (int rounds = 0; rounds < 200;)
        {
            var written = Harvest(child, scan);
            CopyPages(child, written, copy);
            rounds += written.Count > 0 ? 1 : 0;
            Assert.True(clock.Elapsed < TimeSpan.FromMinutes(1), $"The writers wrote something in only {rounds} rounds.");
        }

        using var process = PidFd.Open(child.Pid);
        process.SendSignal(Ptrace.SigStop);
        WaitUntilStopped(child.Pid);
        CopyPages(child, Harvest(child, scan), copy);
        var final = new byte[child.Bytes];
        CopyPages(child, new SortedSet<long>(Enumerable.Range(0, 512).Select(p => (long)p)), final);
        int differs = final.AsSpan().CommonPrefixLength(copy);
        Assert.True(differs == final.Length, $"Page {differs >> PageIndex.PageShift} was written and not harvested (byte {differs & (PageIndex.PageSize - 1)}).");
        Assert.Contains(final, b => b != 0);
    }

    [Fact]
    public void A_range_that_is_not_tracked_is_refused()
    {
        using var child = new ChildProcess("poll");
        using var scan = new PagemapScan(child.Pid);
        var position = child.Base;
        Assert.Equal(-Errno.EPERM, scan.HarvestWritten(ref position, child.Base + child.Bytes, new PageRegion[4]));
    }

    [Fact]
    public void After_tracking_ends_the_process_writes_freely()
    {
        using var child = new ChildProcess("poll");
        using (var uffd = OpenForTracking(child))
        using (var scan = new PagemapScan(child.Pid))
        {
            Harvest(child, scan);
            uffd.Unregister(child.Base, child.Bytes);
        }

        UserfaultfdInjector.CloseInTarget(child.Pid);
        Assert.Equal("ok", child.Ask("write 2 22"));
        Assert.Equal("22", child.Ask("read 2"));
        Assert.Equal(0, child.State("errors"));
    }

    private static Userfaultfd OpenForTracking(ChildProcess child)
    {
        var uffd = UserfaultfdInjector.Open(child.Pid);
        uffd.Api(UffdFeatures.Tracking);
        uffd.Register(child.Base, child.Bytes, UffdRegisterMode.Wp);
        return uffd;
    }

    private static SortedSet<long> Harvest(ChildProcess child, PagemapScan scan, int regionsAtOnce = 64)
    {
        var pages = new SortedSet<long>();
        var regions = new PageRegion[regionsAtOnce];
        var end = child.Base + child.Bytes;
        for (var position = child.Base; position.Value < end.Value;)
        {
            int count = scan.HarvestWritten(ref position, end, regions);
            Assert.True(count >= 0, Errno.Name(-count));
            foreach (var region in regions.AsSpan(0, count))
            {
                for (ulong address = region.Start; address < region.End; address += PageIndex.PageSize)
                {
                    Assert.True(pages.Add((long)((address - child.Base.Value) >> PageIndex.PageShift)));
                }
            }
        }

        return pages;
    }

    private static unsafe void CopyPages(ChildProcess child, SortedSet<long> pages, byte[] into)
    {
        foreach (long page in pages)
        {
            fixed (byte* buffer = &into[page << PageIndex.PageShift])
            {
                Assert.Equal(PageIndex.PageSize, SparseFile.Read(child.File, buffer, PageIndex.PageSize, page << PageIndex.PageShift));
            }
        }
    }

    private static void WaitUntilStopped(int pid)
    {
        // Each thread for itself: only when all stand does memory stand still.
        var clock = System.Diagnostics.Stopwatch.StartNew();
        while (!Directory.GetDirectories($"/proc/{pid}/task").All(t => StateOf(t) == 'T'))
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(10));
            Thread.Yield();
        }
    }

    private static char StateOf(string task)
    {
        string text = File.ReadAllText(Path.Combine(task, "stat"));
        return text[text.LastIndexOf(')') + 2];
    }
}
