using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Bench;

/// <summary>The page sets of a VM of 352 GiB: what a round of the migration does with them must be nothing beside sending pages.</summary>
internal static class PageSetsBenchmark
{
    private const long Pages = 352L << 30 >> 12;
    private const int Runs = 11;

    public static void Run(BenchReport report)
    {
        using var used = new PageBitmap(Pages);
        using var sent = new PageBitmap(Pages);
        var random = new Random(1);
        for (long page = 0; page + 4096 < Pages; page += random.Next(64, 4096))
        {
            used.Fill(new PageRange(page, random.Next(1, 64)), true);
        }

        report.Add("memory of one set, every page touched", "bytes", [(Pages + 63) / 64 * 8.0]);
        report.Add("count the set pages", "ms", Measure.Milliseconds(Runs, () => used.Count()));
        report.Add("take one set from another", "ms", Measure.Milliseconds(Runs, () => sent.AndNot(used)));

        long runsFound = 0;
        void Walk()
        {
            runsFound = 0;
            long from = 0;
            while (used.NextRun(from, long.MaxValue, out PageRange run))
            {
                runsFound++;
                from = run.End;
            }
        }

        double[] walk = Measure.Milliseconds(Runs, Walk);
        report.Add("walk the runs of set pages", "ms", walk);
        report.Add("runs found", "runs", [runsFound]);
        report.Add("allocated by a walk", "bytes", Measure.AllocatedBytes(Runs, Walk), Comparison.AtMost, 0);
    }
}
