using System.Globalization;
using System.Text.Json.Nodes;
using FCtrans.Agent.Hypervisor;
using FCtrans.Bench.Migrations;
using FCtrans.Lab;

namespace FCtrans.Bench.SplitVms;

/// <summary>
/// How long a guest waits for a page that is elsewhere, told by itself: in a split VM, and while QEMU's own post-copy brings the same guest over the
/// same network; beside both, what swap takes that never leaves the machine. Says where we stand, in ratios within a run; has no target.
/// </summary>
internal static class BesidePostCopy
{
    private const long GuestBytes = 1L << 30;
    private const int Mebibytes = 512;
    private const int Touches = 4000;
    private const int SwapMebibytes = 256;
    private const int Port = 49210;
    private const string AllElse = "QEMU's post-copy, all else on its way";
    private const string OwnChannel = "QEMU's post-copy with a channel for faults";
    private const string Slower = "QEMU's post-copy so, the rest at 64 MiB/s";
    private const string OfSwap = "swap in tmpfs, no guest and no network";

    /// <summary>So little is sent before the post-copy begins.</summary>
    private const long SlowBytesPerSecond = 1 << 20;

    /// <summary>At which the pages that nobody waits for are sent, so that most are still away when the guest touches them. QEMU counts the others too.</summary>
    private const long BackgroundBytesPerSecond = 64 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(3);

    public static void Run(BenchReport report, BenchHosts hosts, int runs)
    {
        List<Waits> pushing = [], preempting = [], slower = [], plain = [], tls = [], swap = [];
        var memory = new AgentMemory();
        for (int run = 0; run < runs; run++)
        {
            pushing.Add(PostCopy(hosts, preempt: false, slower: false));
            preempting.Add(PostCopy(hosts, preempt: true, slower: false));
            slower.Add(PostCopy(hosts, preempt: true, slower: true));
            plain.Add(Split(hosts, tls: false, memory));
            tls.Add(Split(hosts, tls: true, memory));
            if (Swap(report) is { } swapped)
            {
                swap.Add(swapped);
            }
        }

        Tell(report, AllElse, pushing);
        Tell(report, OwnChannel, preempting);
        Tell(report, Slower, slower);
        Tell(report, "split VM without TLS", plain);
        Tell(report, "split VM with TLS", tls);
        if (swap.Count > 0)
        {
            report.Add($"{OfSwap}: median", "µs", [.. swap.Select(w => w.P50)]);
            report.Add($"{OfSwap}: p99", "µs", [.. swap.Select(w => w.P99)]);
        }

        foreach (var (ours, waits) in (ReadOnlySpan<(string, List<Waits>)>)[("split VM without TLS", plain), ("split VM with TLS", tls)])
        {
            Compare(report, ours, waits, AllElse, pushing);
            Compare(report, ours, waits, OwnChannel, preempting);
            Compare(report, ours, waits, Slower, slower);
            // Where one run has it, all have: it is the machine that offers it or does not.
            if (swap.Count == runs)
            {
                Compare(report, ours, waits, OfSwap, swap);
            }
        }

        memory.Tell(report, "touching");
    }

    /// <summary>Ours over theirs, run by run; a run in which no touch waited for theirs has no ratio.</summary>
    private static void Compare(BenchReport report, string ours, List<Waits> waits, string theirs, List<Waits> others)
    {
        var both = waits.Zip(others).Where(b => b.Second.P50 > 0).ToList();
        if (both.Count == 0)
        {
            report.Note($"{ours} beside {theirs}: not compared, no touch waited there.");
            return;
        }

        report.Add($"  {ours} beside {theirs}: median", "times", [.. both.Select(b => b.First.P50 / b.Second.P50)]);
        report.Add($"  {ours} beside {theirs}: p99", "times", [.. both.Select(b => b.First.P99 / b.Second.P99)]);
    }

    private static void Tell(BenchReport report, string name, List<Waits> waits)
    {
        report.Add($"{name}: median", "µs", [.. waits.Select(w => w.P50)]);
        report.Add($"{name}: p99", "µs", [.. waits.Select(w => w.P99)]);
        report.Add($"{name}: touches that waited", "%", [.. waits.Select(w => w.Percent)]);
    }

    private static LabGuest Start(BenchHosts hosts) =>
        hosts["a"].StartGuest(new LabGuestOptions { Name = "touching", MemoryBytes = GuestBytes, Qemu = "10.0" });

    private static void Fill(LabGuest guest) => guest.Invoke(Invariant($"fill {Mebibytes}"), s_patience);

    private static Waits Touch(LabGuest guest, string name)
    {
        OracleAnswer answer = guest.Invoke(Invariant($"touch {Touches}"), s_patience);
        Console.WriteLine($"   {name}: {answer}");
        return answer["errors"] == 0
            ? new(answer["waited_p50"] / 1000.0, answer["waited_p99"] / 1000.0, 100.0 * answer["waited"] / answer["touches"])
            : throw new LabException($"The guest found pages with a wrong content: {answer}");
    }

    private static Waits Split(BenchHosts hosts, bool tls, AgentMemory memory)
    {
        ulong kernel = 0;
        using SplitVm vm = SplitVm.Start(
            hosts,
            new LabGuestOptions { Name = "touching", MemoryBytes = GuestBytes, Qemu = "10.0" },
            guest =>
            {
                kernel = SplitVm.UsedBytes(guest);
                Fill(guest);
            },
            _ => kernel + (32 << 20),
            tls: tls);
        Waits waits = Touch(vm.Guest, tls ? "split, TLS" : "split");
        memory.Take(vm);
        vm.Check();
        return waits;
    }

    private static Waits PostCopy(BenchHosts hosts, bool preempt, bool slower)
    {
        LabGuest guest = Start(hosts);
        try
        {
            Fill(guest);
            LabHost from = guest.Host;
            LabHost to = hosts["b"];
            int sourcePid = guest.QemuProcessId;
            StockMigration.StartDestination(guest, to, tls: false);
            using var source = QemuMonitor.Connect(from.PathOf(guest.MonitorPath), TimeSpan.FromSeconds(10));
            using var destination = QemuMonitor.Connect(to.PathOf(guest.MonitorPath), TimeSpan.FromSeconds(10));
            source.CommandTimeout = destination.CommandTimeout = s_patience;
            foreach (QemuMonitor monitor in (QemuMonitor[])[source, destination])
            {
                monitor.SetMigrationCapabilities(new Dictionary<string, bool> { ["postcopy-ram"] = true, ["postcopy-preempt"] = preempt });
            }

            source.SetMigrationParameters(new JsonObject
            {
                ["max-bandwidth"] = SlowBytesPerSecond,
                ["max-postcopy-bandwidth"] = slower ? BackgroundBytesPerSecond : 0,
            });
            destination.MigrateIncoming($"tcp:{to.Address}:{Port}");
            source.Migrate($"tcp:{to.Address}:{Port}");
            source.WaitForMigration(s_patience, "active");
            source.Execute("migrate-start-postcopy");
            source.WaitForMigration(s_patience, "postcopy-active", "completed");
            guest.MoveTo(to);
            Waits waits = Touch(guest, $"post-copy{(preempt ? ", preempt" : "")}{(slower ? ", slower" : "")}");
            source.SetMigrationParameters(new JsonObject { ["max-postcopy-bandwidth"] = 0 });
            if (source.WaitForMigration(s_patience, "completed", "failed") is not { Status: "completed" })
            {
                throw new LabException("QEMU's post-copy failed.");
            }

            guest.Invoke("verify", s_patience);
            from.Exec($"kill -9 {sourcePid}; rm -rf {guest.RunDirectory} /dev/shm/{guest.Name}-ram?");
            return waits;
        }
        finally
        {
            guest.Stop();
        }
    }

    /// <summary>Null where this machine has no swap in memory to offer.</summary>
    private static Waits? Swap(BenchReport report)
    {
        string file = $"/dev/shm/swap-{Guid.NewGuid():N}";
        using var program = new TalkingProgram(TalkingProgram.Compile("swap"), file, SwapMebibytes, Touches);
        string[] kind = program.Expect("swap");
        if (kind[0] == "none")
        {
            report.Note($"swap: not measured, this machine refuses it, on a file in tmpfs and on a loop device over one (errno {kind[1]}).");
            return null;
        }

        double[] n = Array.ConvertAll(program.Expect("touched"), static s => double.Parse(s, CultureInfo.InvariantCulture));
        Console.WriteLine(Invariant($"   swap ({kind[0]}): p50={n[0]} p99={n[1]} max={n[2]}; {n[3]} of {SwapMebibytes << 8} pages stayed"));
        if (n[4] != 0)
        {
            throw new LabException("Pages came back from the swap with a wrong content.");
        }

        if (n[3] * 10 > SwapMebibytes << 8)
        {
            report.Note("swap: not measured, this machine keeps the pages in memory, so that no touch is one of the swap's.");
            return null;
        }

        return new(n[0] / 1000, n[1] / 1000, 100);
    }

    private static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    /// <summary>Microseconds of the touches that waited for their page, and how many of all did.</summary>
    private readonly record struct Waits(double P50, double P99, double Percent);
}
