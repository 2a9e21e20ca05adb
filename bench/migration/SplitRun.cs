using FCtrans.Client;
using FCtrans.Lab;

namespace FCtrans.Bench.Migrations;

/// <summary>Moves a lab guest by a split migration, as the module does: same plan, same runner, real SSH.</summary>
internal static class SplitRun
{
    /// <param name="subs">Sub-hosts.</param>
    /// <param name="mainMemoryBytes">What may stay on the main host.</param>
    /// <param name="change">Other wishes.</param>
    public static (MigrationSample Sample, SplitMigrationOutcome Outcome) Run(
        BenchHosts hosts, LabGuest guest, string main, string[] subs, ulong mainMemoryBytes, GuestWork? work = null,
        Func<SplitMigrationRequest, SplitMigrationRequest>? change = null)
    {
        var request = new SplitMigrationRequest
        {
            Source = hosts.Connection(guest.Host.Name),
            VmName = guest.Name,
            MainHost = hosts.Connection(main),
            SubHosts = [.. subs.Select(hosts.Connection)],
            MainMemoryBytes = _ => mainMemoryBytes,
        };
        request = change?.Invoke(request) ?? request;
        var plan = SplitMigrationPlan.MakeAsync(request, CancellationToken.None).GetAwaiter().GetResult();
        BenchHosts.Warm(hosts[main], guest.MemoryBytes);
        work?.Begin();
        var runner = new SplitMigrationRunner(plan, _ => { });
        var outcome = runner.RunAsync(CancellationToken.None).GetAwaiter().GetResult();
        work?.End();
        LabHost from = guest.Host;
        guest.MoveTo(hosts[main]);
        from.Exec($"rm -rf {guest.RunDirectory}");
        var status = outcome.Migration;
        return (new MigrationSample(
            status.TotalSeconds, status.DowntimeMilliseconds, status.Traffic.Sum(t => (double)t.BytesSent), work?.PerSecond ?? 0), outcome);
    }
}
