using System.Globalization;
using FCtrans.Bench.Migrations;
using FCtrans.Lab;

namespace FCtrans.Bench.SplitVms;

/// <summary>
/// What tracking unused memory is worth to a guest that takes memory, uses it, gives it all back, and does so again: the very same program on
/// the same guest with tracking and without, alternating. Half of its working set has no room on the main host. Two such programs: one has data
/// that it keeps and reads once a round, and takes as much again for a while; the other keeps nothing. The guest tells how many pages it wrote
/// and read and how long that took; rests, in which other programs would run, are not in it. And once with room for all of it, where nothing is
/// paged: what the guest itself takes bounds what tracking can gain, and an emulated guest takes much.
/// </summary>
internal static class FreshMemory
{
    private const long GuestBytes = 1L << 30;
    private const int WorkingSetMebibytes = 384;
    private const int Rounds = 4;

    /// <summary>How much faster it is to be with tracking, in each of the patterns.</summary>
    private const double Gain = 1.85;

    /// <summary>Longer than it takes until the main host knows what was given back.</summary>
    private const int RestMilliseconds = 2500;

    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(5);

    public static void Run(BenchReport report, BenchHosts hosts, int runs)
    {
        Run(report, hosts, runs, WorkingSetMebibytes / 2, "fresh memory beside kept data");
        Run(report, hosts, runs, 0, "fresh memory only");
    }

    private static void Run(BenchReport report, BenchHosts hosts, int runs, int kept, string name)
    {
        List<Used> on = [], off = [], onAtOnce = [], offAtOnce = [], whole = [], wholeAtOnce = [];
        var memory = new AgentMemory();
        for (int run = 0; run < runs; run++)
        {
            foreach (bool tracked in (ReadOnlySpan<bool>)(run % 2 == 0 ? [true, false] : [false, true]))
            {
                Console.WriteLine($"   {name}, tracking {(tracked ? "on" : "off")}");
                using SplitVm vm = Start(hosts, kept, tracked);
                Measure(vm, kept, tracked ? on : off, tracked ? onAtOnce : offAtOnce);
                if (tracked)
                {
                    memory.Take(vm);
                }

                vm.Check();
            }

            Console.WriteLine($"   {name}, room for all of it");
            using SplitVm roomy = Start(hosts, kept, tracked: true, roomy: true);
            Measure(roomy, kept, whole, wholeAtOnce);
            roomy.Check();
        }

        report.Add($"{name}, tracking off", "pages/s", [.. off.Select(u => u.PagesPerSecond)]);
        report.Add($"{name}, tracking on", "pages/s", [.. on.Select(u => u.PagesPerSecond)]);
        report.Add($"{name}, room for all of it", "pages/s", [.. whole.Select(u => u.PagesPerSecond)]);
        report.Add($"  what tracking gains: {name}", "times", Gains(on, off), Comparison.AtLeast, Gain);
        report.Add("  the most that it could gain, if nothing were paged", "times", Gains(whole, off));
        report.Add("  of the time that paging takes without tracking, saved by it", "%", Saved(on, off, whole));
        report.Add("  page-ins of free pages, tracking on", "pages", [.. on.Select(u => u.PageInsOfFree)], Comparison.AtMost, 0);
        report.Add("  page-ins for each fresh page, tracking off", "pages", [.. off.Select(u => u.PageInsEach)]);
        double[] pageIns = [.. on.Select(u => u.PageInsEach)];
        if (kept > 0)
        {
            // What it keeps, it reads again: most of these page-ins are of that, and no number of them would be right.
            report.Add("  page-ins for each fresh page, tracking on", "pages", pageIns);
        }
        else
        {
            report.Add("  page-ins for each fresh page, tracking on", "pages", pageIns, Comparison.AtMost, 0);
        }

        report.Add("  page-outs for each fresh page, tracking off", "pages", [.. off.Select(u => u.PageOutsEach)]);
        report.Add("  page-outs for each fresh page, tracking on", "pages", [.. on.Select(u => u.PageOutsEach)]);
        report.Add("  without rests, tracking off", "pages/s", [.. offAtOnce.Select(u => u.PagesPerSecond)]);
        report.Add("  without rests, tracking on", "pages/s", [.. onAtOnce.Select(u => u.PagesPerSecond)]);
        report.Add("  without rests, room for all of it", "pages/s", [.. wholeAtOnce.Select(u => u.PagesPerSecond)]);
        report.Add($"  what tracking gains without rests: {name}", "times", Gains(onAtOnce, offAtOnce), Comparison.AtLeast, Gain);
        report.Add("  the most that it could gain without rests", "times", Gains(wholeAtOnce, offAtOnce));
        memory.Tell(report, name);
    }

    private static double[] Gains(List<Used> on, List<Used> off) => [.. on.Zip(off, (a, b) => a.PagesPerSecond / b.PagesPerSecond)];

    private static double[] Saved(List<Used> on, List<Used> off, List<Used> whole)
    {
        static double Seconds(Used used) => 1 / used.PagesPerSecond;
        return [.. on.Select((u, i) => 100 * (Seconds(off[i]) - Seconds(u)) / (Seconds(off[i]) - Seconds(whole[i])))];
    }

    private static void Measure(SplitVm vm, int kept, List<Used> withRests, List<Used> atOnce)
    {
        // The first round after it moved, which is not what is measured.
        Use(vm, kept, 1, RestMilliseconds);
        withRests.Add(Use(vm, kept, Rounds, RestMilliseconds));
        atOnce.Add(Use(vm, kept, Rounds, 0));
    }

    /// <param name="roomy">Whether all that the guest may use has room on the main host.</param>
    private static SplitVm Start(BenchHosts hosts, int kept, bool tracked, bool roomy = false)
    {
        ulong idle = 0;
        return SplitVm.Start(
            hosts,
            new LabGuestOptions { Name = "fresh", MemoryBytes = GuestBytes, Qemu = "10.0" },
            guest =>
            {
                // Its memory has been in use before, as that of a guest that has run for a while has.
                guest.Invoke(Invariant($"use {WorkingSetMebibytes}"), s_patience);
                idle = SplitVm.UsedBytes(guest);
                if (kept > 0)
                {
                    guest.Invoke(Invariant($"fill {kept}"), s_patience);
                }
            },
            _ => roomy ? GuestBytes : idle + (((ulong)WorkingSetMebibytes << 20) / 2),
            tracked);
    }

    private static Used Use(SplitVm vm, int kept, int rounds, int restMilliseconds)
    {
        // The memory given back last has been seen to be free, where that is looked at.
        Thread.Sleep(restMilliseconds);
        int taken = WorkingSetMebibytes - kept;
        var before = vm.Paging;
        OracleAnswer answer = vm.Guest.Invoke(Invariant($"use {taken} rounds={rounds} rest={restMilliseconds}"), s_patience);
        var after = vm.Paging;
        if (answer["errors"] != 0)
        {
            throw new LabException($"The guest found pages with a wrong content: {answer}");
        }

        double fresh = rounds * (double)(taken << 8);
        var used = new Used(
            answer["pages"] / (answer["ms"] / 1000.0),
            after.PageInsOfFree - before.PageInsOfFree,
            (after.PageIns - before.PageIns) / fresh,
            (after.PageOuts - before.PageOuts) / fresh);
        Console.WriteLine(Invariant(
            $"   {used.PagesPerSecond:N0} pages/s; page-ins {after.PageIns - before.PageIns} ({used.PageInsOfFree} of free pages), page-outs {after.PageOuts - before.PageOuts}, clean {after.CleanDrops - before.CleanDrops}, unused {after.UnusedFaults - before.UnusedFaults} by {after.UnusedLatency.Count - before.UnusedLatency.Count} faults, turns {after.ReclaimTurns - before.ReclaimTurns}, reclaimed {after.ReclaimedPages - before.ReclaimedPages}"));
        return used;
    }

    private static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    private readonly record struct Used(double PagesPerSecond, double PageInsOfFree, double PageInsEach, double PageOutsEach);
}
