using System.Diagnostics;
using System.Globalization;
using FCtrans.Bench.Migrations;
using FCtrans.Lab;

namespace FCtrans.Bench.SplitVms;

/// <summary>
/// How soon a split VM goes on after something has died under it. The guest touches pages in no order, of which half are remote, and times each
/// touch itself; the one that was under way when a worker was killed, or a link cut, is by far its longest. When it began, is known to a
/// millisecond or two: the guest touches a remote page every few hundred microseconds. When it ended, less when the worker's process was started
/// again (the kernel says so, to 10 ms) or the link was back, is the recovery.
/// </summary>
internal static class Recovery
{
    private const long GuestBytes = 1L << 30;
    private const int Mebibytes = 384;
    private const int Touches = 16_000;

    /// <summary>After so many page-ins the touches are well under way.</summary>
    private const ulong UnderWay = 300;

    private const double TargetMilliseconds = 1000;

    /// <summary>A thousandth of a processor.</summary>
    private const double QuietTargetSeconds = 0.06;

    private static readonly TimeSpan s_quiet = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan s_shortCut = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(2);

    public static void Run(BenchReport report, BenchHosts hosts, int runs)
    {
        ulong kernel = 0;
        using SplitVm vm = SplitVm.Start(
            hosts,
            new LabGuestOptions { Name = "recovering", MemoryBytes = GuestBytes, Qemu = "10.0" },
            guest =>
            {
                kernel = SplitVm.UsedBytes(guest);
                guest.Invoke(Invariant($"fill {Mebibytes}"), s_patience);
            },
            _ => kernel + (((ulong)Mebibytes << 20) / 2));
        List<Outage> main = [], sub = [], away = [], cut = [];
        var memory = new AgentMemory();
        for (int run = 0; run < runs + 2; run++)
        {
            main.Add(Kill(vm, hosts["b"], "main"));
            memory.Take(vm);
            sub.Add(Kill(vm, hosts["sub1"], "sub"));
            away.Add(Cut(vm, hosts["sub1"], () => vm.WaitFor(p => p.State == "waiting")));
            cut.Add(Cut(vm, hosts["sub1"], () => Thread.Sleep(s_shortCut)));
        }

        Tell(report, "main host's worker killed", "started again", main);
        Tell(report, "sub-host's worker killed", "started again", sub);
        Tell(report, "link to a sub-host cut until it was given up", "back", away);
        Tell(report, Invariant($"link to a sub-host cut for {s_shortCut.TotalSeconds} s"), "back", cut);
        memory.Tell(report, "after restarts");
        report.Add("guest at rest: agent on the main host, CPU time a minute", "s", [Quiet(vm)], Comparison.AtMost, QuietTargetSeconds);
    }

    /// <summary>The looks for what the guest frees included, and the few touches of a Linux that has nothing to do.</summary>
    private static double Quiet(SplitVm vm)
    {
        double before = vm.MainWorkerProcessorSeconds;
        Thread.Sleep(s_quiet);
        return (vm.MainWorkerProcessorSeconds - before) / s_quiet.TotalMinutes;
    }

    private static void Tell(BenchReport report, string what, string since, List<Outage> outages)
    {
        report.Add($"{what}: until the next touch is served", "ms", [.. outages.Select(o => o.Whole)]);
        report.Add($"  of that since it was {since}: {what}", "ms", [.. outages.Select(o => o.Recovery)], Comparison.AtMost, TargetMilliseconds);
    }

    private static Outage Kill(SplitVm vm, LabHost host, string role)
    {
        string pidFile = $"/run/fctrans/{vm.SplitId}/{role}/worker.pid";
        string killed = "";
        double killedAt = 0;
        double longest = Touch(vm, () =>
        {
            // The clock is read after the kill: what is then counted as recovery is rather too long.
            string[] told = host.Exec($"read pid <{pidFile}; kill -9 $pid; read up idle </proc/uptime; echo $pid $up").Output.Split();
            killed = told[0];
            killedAt = double.Parse(told[1], CultureInfo.InvariantCulture) * 1000;
        });
        string[] after = host.Exec($"read pid <{pidFile}; read line </proc/$pid/stat; echo $pid $(getconf CLK_TCK) ${{line##*) }}").Output.Split();
        // Of /proc/PID/stat: the 22nd field, ticks after the boot; what follows the program's name begins with the third.
        double startedAt = 1000 * double.Parse(after[2 + 22 - 3], CultureInfo.InvariantCulture) / double.Parse(after[1], CultureInfo.InvariantCulture);
        if (after[0] == killed)
        {
            throw new LabException($"The {role} worker on {host.Name} was not started again.");
        }

        return Told(vm, $"{role} worker killed", longest, startedAt - killedAt);
    }

    private static Outage Cut(SplitVm vm, LabHost host, Action wait)
    {
        double away = 0;
        double longest = Touch(vm, () =>
        {
            host.CutLink();
            long cutAt = Stopwatch.GetTimestamp();
            try
            {
                wait();
                away = Stopwatch.GetElapsedTime(cutAt).TotalMilliseconds;
            }
            finally
            {
                host.RestoreLink();
            }
        });
        return Told(vm, $"link cut for {away / 1000:0.0} s", longest, away);
    }

    private static Outage Told(SplitVm vm, string what, double longest, double away)
    {
        if (longest < away)
        {
            throw new LabException(Invariant($"{what}: no touch waited so long ({longest:0} ms, and it was away for {away:0} ms)."));
        }

        vm.WaitFor(p => p.State == "paging");
        vm.Check();
        Console.WriteLine(Invariant($"   {what}: the next touch was served after {longest:0} ms, {longest - away:0} ms after it was back"));
        return new(longest, longest - away);
    }

    /// <summary>Milliseconds of the longest of many touches, with <paramref name="harm"/> done in the midst of them.</summary>
    private static double Touch(SplitVm vm, Action harm)
    {
        ulong before = vm.Paging.PageIns;
        Task<OracleAnswer> touching = Task.Run(() => vm.Guest.Invoke(Invariant($"touch {Touches}"), s_patience));
        vm.WaitFor(p => p.PageIns > before + UnderWay);
        harm();
        OracleAnswer answer = touching.GetAwaiter().GetResult();
        return answer["errors"] == 0 ? answer["max"] / 1e6 : throw new LabException($"The guest found pages with a wrong content: {answer}");
    }

    private static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    /// <summary>Milliseconds from the harm to the next touch served, and of these what came after the worker was started again or the link was back.</summary>
    private readonly record struct Outage(double Whole, double Recovery);
}
