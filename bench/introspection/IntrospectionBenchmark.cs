using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Bench;

/// <summary>What it costs to know a guest's unused memory: real Linux guests under TCG, from outside.</summary>
internal static class IntrospectionBenchmark
{
    private const int Runs = 21;
    private const long GiB = 1L << 30;

    /// <param name="report">Gets the figures.</param>
    /// <param name="arguments"><c>reclaim</c>: only what concerns giving memory back; <c>small</c>, <c>large</c>: only the looks at a guest of that size.</param>
    public static void Run(BenchReport report, string[] arguments)
    {
        if (arguments is ["reclaim"])
        {
            ReclaimBenchmark.Run(report);
            return;
        }

        if (arguments is ["small"])
        {
            Small(report);
            return;
        }

        if (arguments is ["large"])
        {
            Large(report);
            return;
        }

        Small(report);
        Fragmented(report);
        ReclaimBenchmark.Run(report);
        if (Environment.GetEnvironmentVariable("FCTRANS_BENCH_SMALL") is null)
        {
            Large(report);
        }
    }

    private static void Small(BenchReport report)
    {
        using var guest = new BenchGuest(4 * GiB, 5 * GiB);
        using var unused = new PageBitmap(guest.Ram.PageCount);
        void FirstLook()
        {
            using var pages = guest.OpenUnused();
            if (pages.Refresh(unused).Method != UnusedFigures.Buddy)
            {
                throw new InvalidOperationException("The guest's kernel was not found.");
            }
        }

        report.Add("first look, 4 GiB guest (find its kernel, full scan)", "ms", Measure.Milliseconds(Runs, FirstLook), Comparison.AtMost, 50);
        using var known = guest.OpenUnused();
        known.Refresh(unused);
        using var scanner = new FreePageScanner(known.Kernel!, guest.Ram, mayMap: true);
        report.Add("warm full scan, 4 GiB idle guest", "ms", Measure.Milliseconds(Runs, () => scanner.Scan(unused)), Comparison.AtMost, 0.5);
        report.Add("allocated by a warm scan", "bytes", Measure.AllocatedBytes(Runs, () => scanner.Scan(unused)), Comparison.AtMost, 0);
        if (Environment.GetEnvironmentVariable("FCTRANS_BENCH_PROFILE") is not null)
        {
            Profile(report, guest, known, unused);
        }

        report.Add("refresh with all checks, 4 GiB idle guest", "ms", Measure.Milliseconds(Runs, () => known.Refresh(unused)));
    }

    private static void Profile(BenchReport report, BenchGuest guest, UnusedPages known, PageBitmap unused)
    {
        var memory = new GuestMemoryReader(guest.Ram);
        report.Add("  find pages", "ms", Measure.Milliseconds(Runs, () => VmCoreInfoPages.Find(guest.Ram, mayMap: true, out _)));
        report.Add("  follow pointers", "ms", Measure.Milliseconds(Runs, () => VmCoreInfoPointers.Find(memory, GuestProcessor.Ask(guest.Monitor))));
        report.Add("  open kernel", "ms", Measure.Milliseconds(Runs, () => GuestKernel.TryOpen(memory, known.Kernel!.InfoPage, out _)));
        report.Add("  symbols", "ms", Measure.Milliseconds(Runs, () => KernelSymbols.TryRead(known.Kernel!, KernelSymbols.Wanted, out _)));
        report.Add("  per-cpu layout", "ms", Measure.Milliseconds(Runs, () => PerCpuFreePages.TryOpen(known.Kernel!, guest.Ram)));
        report.Add("  command line", "ms", Measure.Milliseconds(Runs, () => PagePoisoning.CommandLine(known.Kernel!)));
        report.Add("  pattern", "ms", Measure.Milliseconds(Runs, () => PagePoisoning.PatternIn(guest.Ram, unused)));
        report.Add("  ask processors", "ms", Measure.Milliseconds(Runs, () => GuestProcessor.Ask(guest.Monitor)));
        report.Add("  holes", "ms", Measure.Milliseconds(Runs, () => NeverTouchedPages.AddTo(guest.Ram, unused)));
        using var scanner = new FreePageScanner(known.Kernel!, guest.Ram, mayMap: true);
        report.Add("  buddy", "ms", Measure.Milliseconds(Runs, () => scanner.AddFree(unused)));
    }

    private static void Fragmented(BenchReport report)
    {
        // 2 GiB of every other page free; the time is told for 16 GiB of it.
        const long Bytes = 2 * GiB;
        using var guest = new BenchGuest(3 * GiB, 4 * GiB);
        guest.Ask($"holes {Bytes >> 20}");
        using var unused = new PageBitmap(guest.Ram.PageCount);
        using var known = guest.OpenUnused();
        known.Refresh(unused);
        using var scanner = new FreePageScanner(known.Kernel!, guest.Ram, mayMap: true);
        double[] scan = Measure.Milliseconds(Runs, () => scanner.Scan(unused));
        double scale = 16.0 * GiB / Bytes;
        report.Add("warm full scan of fragmented memory, for 16 GiB of it", "ms", [.. scan.Select(ms => ms * scale)], Comparison.AtMost, 100);
    }

    private static void Large(BenchReport report)
    {
        long before = AnonymousBytes();
        using var guest = new BenchGuest(352 * GiB, 353 * GiB, cpus: 1);
        using var unused = new PageBitmap(guest.Ram.PageCount);
        using var known = guest.OpenUnused();
        known.Refresh(unused);
        using var scanner = new FreePageScanner(known.Kernel!, guest.Ram, mayMap: true);
        report.Add("warm full scan, 352 GiB idle guest", "ms", Measure.Milliseconds(Runs, () => scanner.Scan(unused)), Comparison.AtMost, 15);
        using var free = new PageBitmap(guest.Ram.PageCount);
        using var holes = new PageBitmap(guest.Ram.PageCount);
        using var written = new PageBitmap(guest.Ram.PageCount);
        NeverTouchedPages.AddTo(guest.Ram, holes);
        scanner.Scan(free);
        free.AndNot(holes);
        report.Add("rescan, 352 GiB idle guest", "ms", Measure.Milliseconds(Runs, () => scanner.Rescan(free, written, holes)), Comparison.AtMost, 2);
        report.Add(
            "memory that the look takes, 352 GiB guest", "bytes", [AnonymousBytes() - before],
            Comparison.AtMost, (16 << 20) + guest.Ram.PageCount);
    }

    private static long AnonymousBytes()
    {
        GC.Collect();
        string line = File.ReadLines("/proc/self/status").First(l => l.StartsWith("RssAnon:", StringComparison.Ordinal));
        return long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], System.Globalization.CultureInfo.InvariantCulture) * 1024;
    }
}
