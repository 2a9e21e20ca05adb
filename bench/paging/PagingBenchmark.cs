using System.Globalization;
using FCtrans.Contracts;

namespace FCtrans.Bench;

/// <summary>
/// What a fault of a split VM costs, beside a plain C program that does nothing but serve it (floor.c). The guest is a process (guest.c)
/// that times its own touches, the same for both; ours and the floor alternate, and what is compared is the ratio within a round.
/// </summary>
internal static class PagingBenchmark
{
    private const int Rounds = 7;
    private const long Pages = 12_000;
    private const int ManyThreads = 4;

    /// <summary>As many vCPUs as a VM with several userfaultfds has, and so many userfaultfds.</summary>
    private const int SeveralThreads = 8;
    private const int Several = 4;

    private static readonly TimeSpan s_quiet = TimeSpan.FromSeconds(10);

    public static void Run(BenchReport report)
    {
        string directory = Directory.CreateDirectory($"/dev/shm/fctrans-bench-{Guid.NewGuid():N}").FullName;
        try
        {
            Run(report, directory);
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    private static void Run(BenchReport report, string directory)
    {
        using var lab = new PagingBenchLab(directory, Pages);
        var serial = new List<Touched>();
        var plain = new List<Touched>();
        var tls = new List<Touched>();
        var zeroFloor = new List<Touched>();
        var zero = new List<Touched>();
        var manyFloor = new List<Touched>();
        var many = new List<Touched>();
        var refault = new List<(double Rate, double PageIns)>();
        var oldest = new List<(double Rate, double PageIns)>();
        var sweptRefault = new List<(double Rate, double PageIns)>();
        var sweptOldest = new List<(double Rate, double PageIns)>();
        var ofOne = new List<Touched>();
        var ofSeveral = new List<Touched>();
        var besideDemanded = new List<Touched>();
        var besidePrefetched = new List<Touched>();
        var demanded = new List<Touched>();
        var inOrder = new List<Touched>();
        // The first round compiles; it is not counted.
        for (int round = 0; round <= Rounds; round++)
        {
            serial.Add(lab.Floor("serial", 1, "random"));
            plain.Add(lab.Ours(tls: false, 1, "random", prefetch: true));
            tls.Add(lab.Ours(tls: true, 1, "random", prefetch: true));
            zeroFloor.Add(lab.Floor("zero", 1, "random"));
            zero.Add(lab.Fresh());
            manyFloor.Add(lab.Floor("many", ManyThreads, "random"));
            many.Add(lab.Ours(tls: false, ManyThreads, "random", prefetch: true));
            ofOne.Add(lab.Ours(tls: false, SeveralThreads, "random", prefetch: true));
            ofSeveral.Add(lab.Ours(tls: false, SeveralThreads, "random", prefetch: true, Several));
            besideDemanded.Add(lab.BesideWalk(prefetch: false));
            besidePrefetched.Add(lab.BesideWalk(prefetch: true));
            demanded.Add(lab.Ours(tls: false, 2, "ordered", prefetch: false));
            inOrder.Add(lab.Ours(tls: false, 2, "ordered", prefetch: true));
            refault.Add(lab.Skewed(EvictionPolicy.Refault, "skewed"));
            oldest.Add(lab.Skewed(EvictionPolicy.OldestFirst, "skewed"));
            sweptRefault.Add(lab.Skewed(EvictionPolicy.Refault, "swept"));
            sweptOldest.Add(lab.Skewed(EvictionPolicy.OldestFirst, "swept"));
        }

        var (cpu, wakes) = lab.Quiet(s_quiet);

        report.Add("floor: demand fault, median", "µs", Each(serial, t => t.P50));
        report.Add("demand fault without TLS, median", "µs", Each(plain, t => t.P50));
        report.Add("  beside the floor's", "times", Ratios(plain, serial, t => t.P50), Comparison.AtMost, 1.15);
        report.Add("floor: demand fault, p99", "µs", Each(serial, t => t.P99));
        report.Add("demand fault without TLS, p99", "µs", Each(plain, t => t.P99));
        report.Add("  beside the floor's p99", "times", Ratios(plain, serial, t => t.P99), Comparison.AtMost, 1.5);
        report.Add("demand fault with TLS, median", "µs", Each(tls, t => t.P50));
        report.Add("  with TLS beside the floor's", "times", Ratios(tls, serial, t => t.P50), Comparison.AtMost, 1.4);
        report.Add("floor: unused fault, median", "µs", Each(zeroFloor, t => t.P50));
        report.Add("unused fault, median", "µs", Each(zero, t => t.P50));
        report.Add("  unused beside the floor's", "times", Ratios(zero, zeroFloor, t => t.P50), Comparison.AtMost, 1.1);
        report.Add(Invariant($"floor: random, {ManyThreads} threads"), "pages/s", Each(manyFloor, t => t.PagesPerSecond(Pages)));
        report.Add(Invariant($"random, {ManyThreads} threads"), "pages/s", Each(many, t => t.PagesPerSecond(Pages)));
        report.Add("  of what the floor reaches", "times", Ratios(many, manyFloor, t => t.PagesPerSecond(Pages)), Comparison.AtLeast, 0.9);
        report.Add(Invariant($"random, {SeveralThreads} threads, 1 userfaultfd"), "pages/s", Each(ofOne, t => t.PagesPerSecond(Pages)));
        report.Add(Invariant($"random, {SeveralThreads} threads, {Several} userfaultfds"), "pages/s", Each(ofSeveral, t => t.PagesPerSecond(Pages)));
        report.Add("  several userfaultfds beside one", "times", Ratios(ofSeveral, ofOne, t => t.PagesPerSecond(Pages)));
        report.Add("random beside a walk, no prefetch: p99", "µs", Each(besideDemanded, t => t.P99));
        report.Add("random beside a walk, prefetch: p99", "µs", Each(besidePrefetched, t => t.P99));
        report.Add("  what prefetch costs a demanded page: p99", "times", Ratios(besidePrefetched, besideDemanded, t => t.P99));
        report.Add("in order, 2 threads, no prefetch", "pages/s", Each(demanded, t => t.PagesPerSecond(Pages)));
        report.Add("in order, 2 threads, prefetch", "pages/s", Each(inOrder, t => t.PagesPerSecond(Pages)));
        report.Add("  what prefetch gains", "times", Ratios(inOrder, demanded, t => t.PagesPerSecond(Pages)), Comparison.AtLeast, 3);
        report.Add("half resident, skewed: page-ins a touch, oldest first", "pages", [.. oldest.Skip(1).Select(r => r.PageIns)]);
        report.Add("half resident, skewed: page-ins a touch, refault", "pages", [.. refault.Skip(1).Select(r => r.PageIns)]);
        report.Add("half resident, skewed: touches, oldest first", "pages/s", [.. oldest.Skip(1).Select(r => r.Rate)]);
        report.Add("half resident, skewed: touches, refault", "pages/s", [.. refault.Skip(1).Select(r => r.Rate)]);
        report.Add("  page-ins, refault beside oldest first", "times", [.. refault.Zip(oldest, (a, b) => a.PageIns / b.PageIns).Skip(1)], Comparison.AtMost, 1);
        // Each fourth touch is the sweep's, which finds nothing here whatever leaves: a quarter of a page-in a touch is what no policy avoids.
        report.Add("skewed beside a sweep: page-ins a touch, oldest first", "pages", [.. sweptOldest.Skip(1).Select(r => r.PageIns)]);
        report.Add("skewed beside a sweep: page-ins a touch, refault", "pages", [.. sweptRefault.Skip(1).Select(r => r.PageIns)]);
        report.Add("skewed beside a sweep: touches, oldest first", "pages/s", [.. sweptOldest.Skip(1).Select(r => r.Rate)]);
        report.Add("skewed beside a sweep: touches, refault", "pages/s", [.. sweptRefault.Skip(1).Select(r => r.Rate)]);
        report.Add("  page-ins beside a sweep, refault beside oldest first", "times", [.. sweptRefault.Zip(sweptOldest, (a, b) => a.PageIns / b.PageIns).Skip(1)], Comparison.AtMost, 1);
        // A thousandth of a CPU: the .NET runtime's own timers are in it.
        report.Add("nothing faults: CPU time a minute", "s", [cpu], Comparison.AtMost, 0.06);
        report.Add("nothing faults: wake-ups", "1/s", [wakes], Comparison.AtMost, 5);
    }

    private static double[] Each(List<Touched> samples, Func<Touched, double> figure) => [.. samples.Skip(1).Select(figure)];

    private static double[] Ratios(List<Touched> ours, List<Touched> floor, Func<Touched, double> figure) =>
        [.. ours.Zip(floor, (a, b) => figure(a) / figure(b)).Skip(1)];

    private static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
