using System.Globalization;
using System.Net.Sockets;
using FCtrans.Bench.Migrations;
using FCtrans.Lab;

namespace FCtrans.Bench.SplitVms;

/// <summary>
/// Debian's redis-server in a split VM, asked over QEMU's user network while less and less of what the VM uses is on the main host. Says how
/// much of its pace is left; has no target.
/// </summary>
internal static class RealServer
{
    private const long GuestBytes = 1L << 30;
    private const int Keys = 300_000;
    private const int ValueBytes = 1024;
    private const int Port = 6379;
    private static readonly int[] s_shares = [100, 75, 50, 25];
    private static readonly TimeSpan s_settle = TimeSpan.FromSeconds(8);
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
            for (int run = 0; run < runs; run++)
            {
                var before = vm.Paging;
                Served one = load.Run(s_measured, (share * 100) + run);
                var after = vm.Paging;
                served.Add(one);
                pageIns.Add((after.PageIns - before.PageIns) / (double)one.Requests);
                Console.WriteLine(Invariant(
                    $"   {share} %: {one.PerSecond:N0}/s, {one.P50Milliseconds:0.00} ms, p99 {one.P99Milliseconds:0.00} ms; page-ins {after.PageIns - before.PageIns}, page-outs {after.PageOuts - before.PageOuts}, clean {after.CleanDrops - before.CleanDrops}, unused {after.UnusedFaults - before.UnusedFaults}, prefetched {after.PrefetchedPages - before.PrefetchedPages}, hits {after.PrefetchHits - before.PrefetchHits}, resident {after.ResidentPages}, p50 {after.RemoteLatency?.P50Microseconds} µs"));
            }

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
        }

        vm.Check();
    }

    private static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
