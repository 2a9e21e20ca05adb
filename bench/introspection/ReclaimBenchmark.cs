using System.Diagnostics;
using System.Globalization;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Reclaim;

namespace FCtrans.Bench;

/// <summary>What it costs to give back what a running guest has freed: the reclaim, and the guest.</summary>
internal static class ReclaimBenchmark
{
    private const int Runs = 5;
    private const int Pairs = 10;
    private const long GiB = 1L << 30;
    private const int FreedMebibytes = 2048;
    private const int WindowMilliseconds = 4000;
    private const int IntervalMilliseconds = 1000;

    public static void Run(BenchReport report)
    {
        using var guest = new BenchGuest(4 * GiB, 6 * GiB);
        using var pages = guest.OpenUnused();
        using var check = new ProcessorCheck(() => GuestProcessor.Ask(guest.Monitor));
        using var target = HostReclaimTarget.Attach(guest.Ram, guest.Process.Pid);
        using var reclaim = new VmReclaim(guest.Ram, pages, target, check);
        Rate(report, guest, reclaim);
        pages.Watch = target.OpenWriteWatch();
        report.Add("guest's slowdown under continuous reclaim", "%", Slowdown(guest, reclaim), Comparison.AtMost, 3);
    }

    /// <summary>Ours and the floor take turns: memory of the same size, on the same machine, within seconds of each other.</summary>
    private static void Rate(BenchReport report, BenchGuest guest, VmReclaim reclaim)
    {
        const int FloorMebibytes = 1024;
        var all = new ReclaimLimits();
        using var floor = new TalkingProgram(TalkingProgram.Compile("reclaim-floor", "introspection"), FloorMebibytes, 4);
        reclaim.Turn(all, settledOnly: false, CancellationToken.None);
        var ours = new double[Runs];
        var theirs = new double[Runs];
        var punch = new double[Runs];
        for (int run = 0; run < Runs; run++)
        {
            floor.Say("");
            double[] times = Array.ConvertAll(floor.Expect("freed"), static t => double.Parse(t, CultureInfo.InvariantCulture));
            theirs[run] = FloorMebibytes / 1024.0 / (times.Sum() / 1e6);
            punch[run] = FloorMebibytes / 1024.0 / (times[1] / 1e6);
            guest.Ask($"fill {FreedMebibytes}");
            guest.Ask($"free {FreedMebibytes}");
            var figures = reclaim.Turn(all, settledOnly: false, CancellationToken.None);
            ours[run] = figures.FreedPages * (double)PageIndex.PageSize / GiB / (figures.Milliseconds / 1000);
        }

        report.Add("reclaim of free memory in large blocks", "GiB/s", ours, Comparison.AtLeast, 4);
        report.Add("  the kernel's calls for it alone, in C", "GiB/s", theirs);
        report.Add("  of these the freeing of the pages (fallocate) alone", "GiB/s", punch);
        report.Add("  ours, of the kernel's calls alone", "%", [.. ours.Zip(theirs, static (o, t) => 100 * o / t)]);
    }

    /// <summary>
    /// A guest that verifies, rewrites, frees and takes memory: pages verified in a window with reclaim against the one beside it without;
    /// which of the two comes first takes turns.
    /// </summary>
    private static double[] Slowdown(BenchGuest guest, VmReclaim reclaim)
    {
        guest.Ask("fill 512");
        guest.Ask("run rate=50 churn=20 threads=1");
        Verified(guest, reclaim);
        var slowdown = new double[Pairs];
        for (int pair = 0; pair < Pairs; pair++)
        {
            bool first = pair % 2 == 0;
            double one = Verified(guest, first ? reclaim : null);
            double other = Verified(guest, first ? null : reclaim);
            slowdown[pair] = 100 * (1 - (first ? one / other : other / one));
        }

        guest.Ask("pause");
        return slowdown;
    }

    /// <summary>Pages verified in a millisecond.</summary>
    private static double Verified(BenchGuest guest, VmReclaim? reclaim)
    {
        long before = guest.Ask("stat")["pages_verified"];
        long start = Stopwatch.GetTimestamp();
        do
        {
            reclaim?.Turn(new() { ProcessorPercent = 10 }, settledOnly: true, CancellationToken.None);
            // The interval of a reclaim that goes on, and the length of the window: what is measured, not a wait for something.
            Thread.Sleep(IntervalMilliseconds);
        }
        while (Stopwatch.GetElapsedTime(start).TotalMilliseconds < WindowMilliseconds);
        return (guest.Ask("stat")["pages_verified"] - before) / Stopwatch.GetElapsedTime(start).TotalMilliseconds;
    }
}
