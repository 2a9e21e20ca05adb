using System.Globalization;
using System.Net.Sockets;
using FCtrans.Bench.Migrations;
using FCtrans.Contracts;
using FCtrans.Lab;

namespace FCtrans.Bench.SplitVms;

/// <summary>
/// Debian's redis-server in a split VM, asked over QEMU's user network while less and less of what the VM uses is on the main host. Says how
/// much of its pace is left, by our own load and by redis-benchmark, and with half of it there by which policy pages leave; has no target.
/// </summary>
internal static class RealServer
{
    private const long GuestBytes = 1L << 30;
    private const int Keys = 300_000;
    private const int ValueBytes = 1024;
    private const int Port = 6379;

    /// <summary>At which both eviction policies are measured.</summary>
    private const int ShareOfPolicies = 50;

    private static readonly int[] s_shares = [100, 75, 50, 25];

    /// <summary>By how much redis-benchmark asks in a run, by share: it knows no time limit, and takes some seconds for so many.</summary>
    private static readonly Dictionary<int, int> s_requests = new() { [100] = 10_000, [50] = 5_000 };
    private static readonly TimeSpan s_settle = TimeSpan.FromSeconds(8);
    private static readonly TimeSpan s_settlePolicy = TimeSpan.FromSeconds(4);
    private static readonly TimeSpan s_measured = TimeSpan.FromSeconds(8);

    public static void Run(BenchReport report, BenchHosts hosts, int runs)
    {
        var load = new ServerLoad(hosts["b"].Address, Port, Keys, ValueBytes);
        ulong used = 0;
        using SplitVm vm = SplitVm.Start(
            hosts,
            new LabGuestOptions
            {
                Name = "server",
                MemoryBytes = GuestBytes,
                Qemu = "10.0",
                Server = true,
                QemuArguments = ["-netdev", Invariant($"user,id=net0,hostfwd=tcp::{Port}-:{Port}"), "-device", "virtio-net-pci,netdev=net0,romfile="],
            },
            guest =>
            {
                var started = guest.Invoke("sh /server/start");
                if (started["status"] != 0)
                {
                    throw new LabException($"redis-server did not start in the guest: {started}");
                }

                try
                {
                    new ServerLoad(hosts["a"].Address, Port, Keys, ValueBytes).Fill();
                }
                catch (Exception e) when (e is IOException or SocketException)
                {
                    throw new LabException($"{e.Message} redis-server said: {guest.Invoke("sh tail -n 30 /tmp/redis.log; dmesg | tail -n 5").Values["output"]}");
                }

                used = SplitVm.UsedBytes(guest);
            },
            _ => (ulong)GuestBytes);
        double whole = 0;
        foreach (int share in s_shares)
        {
            vm.Limit(share == 100 ? (ulong)GuestBytes : used / 100 * (ulong)share & ~0xFFFUL);
            load.Run(s_settle, share);
            List<Served> served = [];
            List<double> pageIns = [];
            List<Served> oldest = [];
            for (int run = 0; run < runs; run++)
            {
                // Never the same requests twice: what they touch would be there the second time. And each policy is the first one in turn.
                int seed = ((share * 100) + run) * 4;
                if (share == ShareOfPolicies && run % 2 == 0)
                {
                    oldest.Add(ByPolicy(vm, load, EvictionPolicy.OldestFirst, seed).Served);
                }

                var (one, pageInsEach) = share == ShareOfPolicies ? ByPolicy(vm, load, EvictionPolicy.Refault, seed + 1) : Measure(vm, load, $"{share} %", seed + 1);
                served.Add(one);
                pageIns.Add(pageInsEach);
                if (share == ShareOfPolicies && run % 2 == 1)
                {
                    oldest.Add(ByPolicy(vm, load, EvictionPolicy.OldestFirst, seed).Served);
                }
            }

            vm.Set(new PagingSettings { EvictionPolicy = EvictionPolicy.Refault });
            double[] perSecond = [.. served.Select(s => s.PerSecond)];
            whole = share == 100 ? perSecond.Average() : whole;
            report.Add(Invariant($"redis, {share} % resident"), "requests/s", perSecond);
            report.Add(Invariant($"redis, {share} % resident, median"), "ms", [.. served.Select(s => s.P50Milliseconds)]);
            report.Add(Invariant($"redis, {share} % resident, p99"), "ms", [.. served.Select(s => s.P99Milliseconds)]);
            report.Add(Invariant($"  page-ins a request, {share} % resident"), "pages", pageIns);
            if (share != 100)
            {
                report.Add(Invariant($"  of the pace with all of it resident, {share} %"), "%", [.. perSecond.Select(s => 100 * s / whole)]);
            }

            if (oldest.Count > 0)
            {
                report.Add(Invariant($"redis, {share} % resident, oldest first"), "requests/s", [.. oldest.Select(s => s.PerSecond)]);
                report.Add(Invariant($"redis, {share} % resident, oldest first, p99"), "ms", [.. oldest.Select(s => s.P99Milliseconds)]);
                report.Add("  requests, refault beside oldest first", "times", [.. served.Zip(oldest, (a, b) => a.PerSecond / b.PerSecond)]);
                report.Add("  p99, refault beside oldest first", "times", [.. served.Zip(oldest, (a, b) => a.P99Milliseconds / b.P99Milliseconds)]);
            }

            if (s_requests.TryGetValue(share, out int requests))
            {
                foreach (string command in (ReadOnlySpan<string>)["GET", "SET"])
                {
                    Served own = RedisBenchmark.Run(hosts["b"].Address, Port, command, requests, Keys, ValueBytes);
                    Console.WriteLine(Invariant($"   {share} %: redis-benchmark {command}: {own.PerSecond:N0}/s, p99 {own.P99Milliseconds:0.00} ms"));
                    report.Add(Invariant($"redis-benchmark, {share} % resident, {command}"), "requests/s", [own.PerSecond]);
                    report.Add(Invariant($"redis-benchmark, {share} % resident, {command}, p99"), "ms", [own.P99Milliseconds]);
                }
            }
        }

        var memory = new AgentMemory();
        memory.Take(vm);
        memory.Tell(report, "redis");
        vm.Check();
    }

    /// <summary>Changes the policy in the running VM, as <c>Set-VmRemotePaging -EvictionPolicy</c> does, has the server asked until it shows, and measures.</summary>
    private static (Served Served, double PageInsEach) ByPolicy(SplitVm vm, ServerLoad load, EvictionPolicy policy, int seed)
    {
        vm.Set(new PagingSettings { EvictionPolicy = policy });
        vm.WaitFor(p => p.EvictionPolicy == policy);
        load.Run(s_settlePolicy, seed + 2);
        return Measure(vm, load, Invariant($"{ShareOfPolicies} %, {policy}"), seed);
    }

    private static (Served Served, double PageInsEach) Measure(SplitVm vm, ServerLoad load, string what, int seed)
    {
        var before = vm.Paging;
        Served one = load.Run(s_measured, seed);
        var after = vm.Paging;
        Console.WriteLine(Invariant(
            $"   {what}: {one.PerSecond:N0}/s, {one.P50Milliseconds:0.00} ms, p99 {one.P99Milliseconds:0.00} ms; page-ins {after.PageIns - before.PageIns}, page-outs {after.PageOuts - before.PageOuts}, clean {after.CleanDrops - before.CleanDrops}, unused {after.UnusedFaults - before.UnusedFaults}, prefetched {after.PrefetchedPages - before.PrefetchedPages}, hits {after.PrefetchHits - before.PrefetchHits}, resident {after.ResidentPages}, p50 {after.RemoteLatency?.P50Microseconds} µs"));
        return (one, (after.PageIns - before.PageIns) / (double)one.Requests);
    }

    private static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
