using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Reclaim;

namespace FCtrans.Bench;

/// <summary>What it costs to give back what a running guest has freed: the reclaim, and the guest.</summary>
internal static class ReclaimBenchmark
{
    private const int Runs = 3;
    private const int Windows = 4;
    private const long GiB = 1L << 30;
    private const int FreedMebibytes = 2048;

    public static void Run(BenchReport report)
    {
        using var guest = new BenchGuest(4 * GiB, 5 * GiB);
        using var pages = guest.OpenUnused();
        using var check = new ProcessorCheck(() => GuestProcessor.Ask(guest.Monitor));
        using var target = HostReclaimTarget.Attach(guest.Ram, guest.Process.Pid);
        using var reclaim = new VmReclaim(guest.Ram, pages, target, check);
        var all = new ReclaimLimits();
        reclaim.Turn(all, settledOnly: false, CancellationToken.None);
        var rates = new double[Runs];
        for (int run = 0; run < Runs; run++)
        {
            guest.Ask($"fill {FreedMebibytes}");
            guest.Ask($"free {FreedMebibytes}");
            var figures = reclaim.Turn(all, settledOnly: false, CancellationToken.None);
            rates[run] = figures.FreedPages * (double)PageIndex.PageSize / GiB / (figures.Milliseconds / 1000);
        }

        report.Add("reclaim of free memory in large blocks", "GiB/s", rates, Comparison.AtLeast, 4);
        report.Add("guest's slowdown under continuous reclaim", "%", Slowdown(guest, reclaim), Comparison.AtMost, 3);
    }

    /// <summary>A guest that verifies, rewrites, frees and takes memory: pages verified in a window with reclaim against the one before without.</summary>
    private static double[] Slowdown(BenchGuest guest, VmReclaim reclaim)
    {
        guest.Ask("fill 512");
        guest.Ask("run rate=50 churn=20 threads=1");
        var slowdown = new double[Windows];
        for (int window = 0; window < Windows; window++)
        {
            double without = Verified(guest, null);
            double with = Verified(guest, reclaim);
            slowdown[window] = 100 * (1 - (with / without));
        }

        guest.Ask("pause");
        return slowdown;
    }

    private static double Verified(BenchGuest guest, VmReclaim? reclaim)
    {
        long before = guest.Ask("stat")["pages_verified"];
        long start = Environment.TickCount64;
        do
        {
            reclaim?.Turn(new() { ProcessorPercent = 10 }, settledOnly: true, CancellationToken.None);
            // The interval of a reclaim that goes on, and the length of the window: what is measured, not a wait for something.
            Thread.Sleep(1000);
        }
        while (Environment.TickCount64 - start < 6000);
        return (guest.Ask("stat")["pages_verified"] - before) / (double)(Environment.TickCount64 - start);
    }
}
