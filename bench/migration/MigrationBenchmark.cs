using System.Globalization;
using FCtrans.Client;
using FCtrans.Contracts;
using FCtrans.Lab;

namespace FCtrans.Bench.Migrations;

/// <summary>
/// Split migrations beside stock QEMU's own of the very same guest, alternating: in each run the guest goes by one stream, then by
/// multifd, then split. Time counts from the start of the transfer to the VM running at the destination, whose QEMU runs already.
/// <para>
/// Arguments: <c>short</c> (small guests, one run), <c>runs=N</c>, <c>qemu=7.2</c>, and names of scenarios (freed, idle, busy, slowdown, full,
/// shaped, huge); without names all run.
/// </para>
/// </summary>
internal static class MigrationBenchmark
{
    private const int StockStreams = 2;
    private static readonly string[] s_subs = ["sub1", "sub2"];

    public static void Run(BenchReport report, string[] arguments)
    {
        var options = Options.Parse(arguments);
        using var hosts = new BenchHosts("a", "b", "sub1", "sub2");
        foreach (var (name, scenario) in (ReadOnlySpan<(string, Action<BenchReport, BenchHosts, Options>)>)
            [("freed", Freed), ("idle", Idle), ("busy", Busy), ("slowdown", Slowdown), ("full", Full), ("shaped", Shaped), ("huge", Huge)])
        {
            if (options.Wants(name))
            {
                Console.WriteLine($"-- {name}");
                scenario(report, hosts, options);
            }
        }
    }

    /// <summary>A guest that had most of its memory in use and freed it.</summary>
    private static void Freed(BenchReport report, BenchHosts hosts, Options options)
    {
        var runs = options.Times(() => Beside(hosts, options, guest =>
        {
            guest.Invoke($"fill {options.Mebibytes * 3 / 4}", TimeSpan.FromMinutes(5));
            guest.Invoke($"free {options.Mebibytes * 3 / 4}", TimeSpan.FromMinutes(5));
        }));
        Tell(report, "freed guest", runs, timesOfOneStream: 40, timesOfMultifd: 25);
        report.Add("freed guest: bytes, of one stream's", "%", [.. runs.Select(r => 100 * r.Split.BytesSent / r.OneStream.BytesSent)], Comparison.AtMost, 5);
    }

    private static void Idle(BenchReport report, BenchHosts hosts, Options options) =>
        Tell(report, "idle guest", options.Times(() => Beside(hosts, options, static _ => { })), timesOfOneStream: 4, timesOfMultifd: 4);

    /// <summary>Both sides are given the same downtime to keep; QEMU's is stopped when it has not converged after a minute.</summary>
    private static void Busy(BenchReport report, BenchHosts hosts, Options options)
    {
        const int limitMilliseconds = 100;
        var stock = new List<MigrationSample>();
        var split = new List<MigrationSample>();
        var left = new List<double>();
        var taken = new List<double>();
        options.Times(() =>
        {
            LabGuest guest = Start(hosts, options);
            guest.Invoke("fill 256");
            guest.Invoke("run rate=100000 threads=1");
            stock.Add(StockMigration.Run(guest, hosts["b"], 1, downtimeMilliseconds: limitMilliseconds, giveUpAfter: options.Patience));
            var (sample, outcome) = SplitRun.Run(
                hosts, guest, "a", s_subs, options.MainMemory, change: r => r with { MaxDowntime = TimeSpan.FromMilliseconds(limitMilliseconds) });
            split.Add(sample);
            left.Add(outcome.Migration.LeftPagesAtSwitchOver * 4096.0 / (1 << 20));
            taken.Add(outcome.Migration.PostCopySeconds);
            Check(guest);
            guest.Stop();
            return 0;
        });
        report.Add("busy guest: stock QEMU, total", "s", [.. stock.Select(s => s.Seconds)]);
        report.Add("busy guest: stock QEMU, downtime", "ms", [.. stock.Select(s => s.DowntimeMilliseconds)]);
        report.Add("busy guest: split, total", "s", [.. split.Select(s => s.Seconds)], Comparison.AtMost, Median(stock.Select(s => s.Seconds)));
        report.Add("busy guest: split, downtime", "ms", [.. split.Select(s => s.DowntimeMilliseconds)], Comparison.AtMost,
            Math.Min(100, Median(stock.Select(s => s.DowntimeMilliseconds))));
        report.Add("busy guest: split, left at the source", "MiB", left);
        report.Add("busy guest: split, until the source was empty", "s", taken);
    }

    /// <summary>What pre-copy costs the guest, both at the same rate, measured inside it.</summary>
    private static void Slowdown(BenchReport report, BenchHosts hosts, Options options)
    {
        const long bytesPerSecond = 40_000_000;
        var stockLost = new List<double>();
        var splitLost = new List<double>();
        options.Times(() =>
        {
            LabGuest guest = Start(hosts, options);
            guest.Invoke("fill 384");
            guest.Invoke("run rate=8 threads=1");
            var work = new GuestWork(guest);
            double before = Undisturbed(work);
            StockMigration.Run(guest, hosts["b"], 1, giveUpAfter: options.Patience, work: work, bytesPerSecond: bytesPerSecond);
            stockLost.Add(Lost(before, work.PerSecond));
            before = Undisturbed(work);
            SplitRun.Run(hosts, guest, "a", s_subs, options.MainMemory, work, r => r with { BandwidthLimitBytesPerSecond = (ulong)bytesPerSecond });
            splitLost.Add(Lost(before, work.PerSecond));
            Check(guest);
            guest.Stop();
            return 0;
        });
        report.Add("pre-copy at 40 MB/s: stock QEMU, work that the guest lost", "%", stockLost);
        report.Add("pre-copy at 40 MB/s: split, work that the guest lost", "%", splitLost, Comparison.AtMost, Math.Max(1, Median(stockLost) / 2));
    }

    /// <summary>A guest that uses all its memory: bytes of guest memory a second, with TLS on both sides and on neither.</summary>
    private static void Full(BenchReport report, BenchHosts hosts, Options options)
    {
        foreach (bool tls in (ReadOnlySpan<bool>)[true, false])
        {
            var stock = new List<double>();
            var split = new List<double>();
            var ratio = new List<double>();
            var processor = new List<double>();
            var memory = new List<double>();
            options.Times(() =>
            {
                LabGuest guest = Start(hosts, options);
                int fill = (options.FullMebibytes - 500) & ~15;
                guest.Invoke($"fill {fill}", TimeSpan.FromMinutes(10));
                stock.Add(fill / StockMigration.Run(guest, hosts["b"], StockStreams, tls).Seconds);
                var (sample, outcome) = SplitRun.Run(hosts, guest, "a", s_subs, options.MainMemory, change: r => r with { Tls = tls });
                split.Add(fill / sample.Seconds);
                processor.Add(outcome.Migration.SourceProcessorSeconds / (fill / 1024.0));
                memory.Add(Mebibytes(outcome.Migration.SourcePeakMemoryBytes));
                ratio.Add(split[^1] / stock[^1]);
                Check(guest);
                guest.Stop();
                return 0;
            });
            string with = tls ? "with TLS" : "without TLS";
            report.Add($"full guest, {with}: stock QEMU, multifd", "MiB/s", [.. stock]);
            report.Add($"full guest, {with}: split", "MiB/s", [.. split]);
            report.Add($"full guest, {with}: split, of multifd's", "times", [.. ratio], Comparison.AtLeast, 1.5);
            report.Add($"full guest, {with}: split, agent at the source, for each GiB", "CPU s", [.. processor]);
            report.Add($"full guest, {with}: split, agent at the source", "MiB", [.. memory], Comparison.AtMost, AgentMebibytes(options.Mebibytes));
        }
    }

    /// <summary>How much of a link of 1 Gbit/s is used, how exactly a limit is kept, and what it takes at the source.</summary>
    private static void Shaped(BenchReport report, BenchHosts hosts, Options options)
    {
        const long bitsPerSecond = 1_000_000_000;
        const ulong limit = 50_000_000;
        // What the link carries besides: of each 1514 bytes of an Ethernet frame TCP has 1448.
        const double wireBytes = 1514.0 / 1448;
        var used = new List<double>();
        var kept = new List<double>();
        options.Times(() =>
        {
            foreach (bool shaped in (ReadOnlySpan<bool>)[true, false])
            {
                LabGuest guest = Start(hosts, options);
                guest.Invoke($"fill {options.Mebibytes / 4}", TimeSpan.FromMinutes(5));
                hosts.Shape(shaped ? bitsPerSecond : null);
                var (sample, outcome) = SplitRun.Run(
                    hosts, guest, "b", s_subs, options.MainMemory,
                    change: r => shaped ? r : r with { BandwidthLimitBytesPerSecond = limit });
                hosts.Shape(null);
                var first = outcome.Migration.Rounds[0];
                double rate = first.BytesSent / first.Seconds;
                (shaped ? used : kept).Add(shaped ? 100 * rate * wireBytes * 8 / bitsPerSecond : 100 * rate / limit);
                Check(guest);
                guest.Stop();
            }

            return 0;
        });
        report.Add("link of 1 Gbit/s: used in the first round", "%", [.. used], Comparison.AtLeast, 95);
        // Both sides are held: a limit that is kept by sending hardly anything is none.
        report.Add("limit of 50 MB/s: used in the first round, no more", "%", [.. kept], Comparison.AtMost, 105);
        report.Add("limit of 50 MB/s: used in the first round, no less", "%", [.. kept], Comparison.AtLeast, 90);
    }

    /// <summary>
    /// 352 GiB, nearly all of it never used, over links of 10 Gbit/s. Stock QEMU reads all of the guest's memory, which makes pages of shared
    /// memory that was never touched: more than this machine has. It moves a smaller guest, and is reckoned by size.
    /// </summary>
    private static void Huge(BenchReport report, BenchHosts hosts, Options options)
    {
        const double bitsPerSecond = 10e9;
        const ulong mainMemory = 4UL << 30;
        int mebibytes = options.Short ? 64 << 10 : 352 << 10;
        var memoryOfMain = new List<double>();
        var seconds = new List<double>();
        var times = new List<double>();
        var memory = new List<double>();
        var downtime = new List<double>();
        var stock = new List<double>();
        options.Times(() =>
        {
            LabGuest guest = Start(hosts, options);
            hosts.Shape((long)bitsPerSecond);
            stock.Add(StockMigration.Run(guest, hosts["b"], StockStreams).Seconds * mebibytes / options.Mebibytes);
            hosts.Shape(null);
            guest.Stop();
            guest = Start(hosts, options, mebibytes);
            hosts.Shape((long)bitsPerSecond);
            var (sample, outcome) = SplitRun.Run(hosts, guest, "b", s_subs, mainMemory);
            hosts.Shape(null);
            Show(sample, outcome);
            seconds.Add(sample.Seconds);
            downtime.Add(sample.DowntimeMilliseconds);
            memory.Add(Mebibytes(outcome.Migration.SourcePeakMemoryBytes));
            // Once it has looked for what the guest does not use.
            Thread.Sleep(TimeSpan.FromSeconds(10));
            memoryOfMain.Add(double.Parse(
                hosts["b"].Exec("awk '/^RssAnon/ { print $2 / 1024 }' /proc/$(cat /run/fctrans/*/main/worker.pid)/status").Output, CultureInfo.InvariantCulture));
            times.Add((((double)mebibytes) * (1 << 20) * 8 / bitsPerSecond) / sample.Seconds);
            guest.Stop();
            return 0;
        });
        report.Add($"{mebibytes >> 10} GiB idle, 10 Gbit/s: split, total", "s", [.. seconds]);
        report.Add($"{mebibytes >> 10} GiB idle, 10 Gbit/s: faster than all of it over the link", "times", [.. times], Comparison.AtLeast, 100);
        report.Add($"{mebibytes >> 10} GiB idle, 10 Gbit/s: stock QEMU, multifd, reckoned from {options.Mebibytes >> 10} GiB", "s", [.. stock]);
        report.Add($"{mebibytes >> 10} GiB idle, 10 Gbit/s: faster than multifd, so reckoned", "times", [.. stock.Zip(seconds, (s, t) => s / t)]);
        report.Add($"{mebibytes >> 10} GiB idle, 10 Gbit/s: split, downtime", "ms", [.. downtime]);
        report.Add($"{mebibytes >> 10} GiB idle: split, agent at the source", "MiB", [.. memory], Comparison.AtMost, AgentMebibytes(mebibytes));
        double pages = (double)mebibytes * (1 << 20) / 4096;
        report.Add(
            $"{mebibytes >> 10} GiB idle: split, agent at the main host", "MiB", [.. memoryOfMain], Comparison.AtMost,
            64 + ((pages + (8 * (mainMemory / 4096.0))) / (1 << 20)));
    }

    private static Triple Beside(BenchHosts hosts, Options options, Action<LabGuest> prepare)
    {
        // Each way takes a guest of its own, in the same state: one that has been moved before is another.
        var one = Fresh(hosts, options, prepare, guest => StockMigration.Run(guest, hosts["b"], 1));
        var multifd = Fresh(hosts, options, prepare, guest => StockMigration.Run(guest, hosts["b"], StockStreams));
        var (split, outcome) = Fresh(hosts, options, prepare, guest => SplitRun.Run(hosts, guest, "b", s_subs, options.MainMemory));
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture, $"   {one.Seconds:0.000} s, multifd {multifd.Seconds:0.000} s"));
        Show(split, outcome);
        return new Triple(one, multifd, split);
    }

    private static void Show(MigrationSample split, SplitMigrationOutcome outcome)
    {
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture, $"   split {split.Seconds:0.000} s ({split.DowntimeMilliseconds:0} ms down, {split.BytesSent / 1e6:0} MB)"));
        foreach (RoundStatus round in outcome.Migration.Rounds)
        {
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture, $"      round {round.Round}: {round.Seconds * 1000:0} ms, {round.PagesSent} pages, {round.BytesSent / 1e6:0} MB"));
        }
    }

    private static T Fresh<T>(BenchHosts hosts, Options options, Action<LabGuest> prepare, Func<LabGuest, T> move)
    {
        LabGuest guest = Start(hosts, options);
        prepare(guest);
        T result = move(guest);
        guest.Invoke("verify");
        Check(guest);
        guest.Stop();
        return result;
    }

    private static void Tell(BenchReport report, string name, IReadOnlyList<Triple> runs, double timesOfOneStream, double timesOfMultifd)
    {
        report.Add($"{name}: stock QEMU, one stream", "s", [.. runs.Select(r => r.OneStream.Seconds)]);
        report.Add($"{name}: stock QEMU, one stream, downtime", "ms", [.. runs.Select(r => r.OneStream.DowntimeMilliseconds)]);
        report.Add($"{name}: stock QEMU, multifd", "s", [.. runs.Select(r => r.Multifd.Seconds)]);
        report.Add($"{name}: split", "s", [.. runs.Select(r => r.Split.Seconds)]);
        report.Add($"{name}: split, downtime", "ms", [.. runs.Select(r => r.Split.DowntimeMilliseconds)]);
        report.Add($"{name}: split, sent", "MB", [.. runs.Select(r => r.Split.BytesSent / 1e6)]);
        report.Add($"{name}: faster than one stream", "times", [.. runs.Select(r => r.OneStream.Seconds / r.Split.Seconds)], Comparison.AtLeast, timesOfOneStream);
        report.Add($"{name}: faster than multifd", "times", [.. runs.Select(r => r.Multifd.Seconds / r.Split.Seconds)], Comparison.AtLeast, timesOfMultifd);
    }

    private static LabGuest Start(BenchHosts hosts, Options options, int? mebibytes = null) => hosts["a"].StartGuest(new LabGuestOptions
    {
        Name = "bench",
        MemoryBytes = (long)(mebibytes ?? options.Mebibytes) << 20,
        Qemu = options.Qemu,
        BootTimeout = TimeSpan.FromMinutes(5),
    });

    private static double Undisturbed(GuestWork work)
    {
        work.Begin();
        work.End();
        return work.PerSecond;
    }

    /// <summary>What the agent at the source may take: 64 MiB, and 2 bytes for each page.</summary>
    private static double AgentMebibytes(int guestMebibytes) => 64 + (guestMebibytes * 256.0 * 2 / (1 << 20));

    private static double Mebibytes(ulong bytes) => bytes / (double)(1 << 20);

    private static double Lost(double before, double during) => Math.Max(0, 100 * (1 - (during / before)));

    /// <summary>A figure of a migration that broke something is worth nothing.</summary>
    private static void Check(LabGuest guest)
    {
        var stat = guest.Invoke("stat", TimeSpan.FromMinutes(2));
        if (stat["errors"] != 0)
        {
            throw new LabException($"The guest's oracle found errors: {stat}");
        }
    }

    private static double Median(IEnumerable<double> samples)
    {
        double[] sorted = [.. samples.Order()];
        return sorted[sorted.Length / 2];
    }

    private sealed record Triple(MigrationSample OneStream, MigrationSample Multifd, MigrationSample Split);

    private sealed record Options(bool Short, int Runs, string Qemu, string[] Names)
    {
        /// <summary>Of a guest.</summary>
        public int Mebibytes => Short ? 3072 : 8192;

        /// <summary>Of the guest that uses all its memory.</summary>
        public int FullMebibytes => Short ? 3072 : 8192;

        public ulong MainMemory => (ulong)Mebibytes << 20 >> 2;

        /// <summary>How long QEMU's own migration may try to converge.</summary>
        public TimeSpan Patience => TimeSpan.FromSeconds(Short ? 15 : 60);

        public static Options Parse(string[] arguments)
        {
            bool isShort = arguments.Contains("short");
            string? runs = Value(arguments, "runs=");
            return new Options(
                isShort,
                runs is null ? isShort ? 1 : 5 : int.Parse(runs, CultureInfo.InvariantCulture),
                Value(arguments, "qemu=") ?? "10.0",
                [.. arguments.Where(a => a != "short" && !a.Contains('=', StringComparison.Ordinal))]);
        }

        public bool Wants(string name) => Names.Length == 0 || Names.Contains(name);

        public List<T> Times<T>(Func<T> run)
        {
            var results = new List<T>();
            for (int i = 0; i < Runs; i++)
            {
                results.Add(run());
            }

            return results;
        }

        private static string? Value(string[] arguments, string key) =>
            arguments.FirstOrDefault(a => a.StartsWith(key, StringComparison.Ordinal))?[key.Length..];
    }
}
