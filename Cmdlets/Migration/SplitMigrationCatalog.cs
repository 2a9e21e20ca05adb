using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Puts together what several hosts know of the same migration.</summary>
internal static class SplitMigrationCatalog
{
    /// <summary>One object for each split VM that any host has a worker of, the newest last.</summary>
    public static SplitMigration[] From(IEnumerable<(KvmHost Host, WorkerSummary Worker)> workers) =>
        [.. workers.Where(w => w.Worker.Spec is not null).GroupBy(w => w.Worker.Spec.SplitId).Select(g => Merge([.. g]))
            .OrderBy(m => m.Started)];

    /// <summary>Looks on all connected hosts for a migration.</summary>
    /// <param name="id">Its split id.</param>
    /// <param name="stop">Gives the search up.</param>
    /// <exception cref="FCtransException">MigrationNotFound, NoHostConnected, or why a host that may know does not answer.</exception>
    public static async Task<SplitMigration> FindAsync(string id, CancellationToken stop)
    {
        SplitMigration[] found = await SearchAsync(
            all => all.Where(m => string.Equals(m.SplitId, id, StringComparison.OrdinalIgnoreCase)), stop).ConfigureAwait(false);
        return found.LastOrDefault() ?? throw Failure.MigrationNotFound(id);
    }

    /// <summary>Looks on all connected hosts for the migrations of VMs. A VM may have been moved before: the newest is meant.</summary>
    /// <param name="vm">The VM, or a name with wildcards, which may match none.</param>
    /// <param name="stop">Gives the search up.</param>
    /// <exception cref="FCtransException">MigrationNotFound, NoHostConnected, or why a host that may know does not answer.</exception>
    public static async Task<SplitMigration[]> FindNewestAsync(VmReference vm, CancellationToken stop)
    {
        SplitMigration[] found = await SearchAsync(
            all => vm.Pick(all, m => m.VM, IsOn).GroupBy(m => m.VM).Select(g => g.Last()), stop).ConfigureAwait(false);
        return found.Length > 0 || vm.IsPattern ? found : throw Failure.MigrationNotFound($"of a VM '{vm}'");
    }

    /// <summary>Whether a host takes part in a migration, in whatever part.</summary>
    public static bool IsOn(SplitMigration migration, KvmHost host) =>
        migration.SubHosts.Prepend(migration.MainHost).Prepend(migration.SourceHost).Contains(host.Name, StringComparer.OrdinalIgnoreCase);

    private static Task<SplitMigration[]> SearchAsync(
        Func<IEnumerable<SplitMigration>, IEnumerable<SplitMigration>> pick, CancellationToken stop) => HostRegistry.SearchAsync(
            h => h.ListWorkersAsync(stop),
            all => pick(From(all.SelectMany(p => p.Answer.Select(w => (p.Host, w))))));

    private static SplitMigration Merge((KvmHost Host, WorkerSummary Worker)[] parts)
    {
        (KvmHost Host, WorkerSummary Worker) source = Of(parts, WorkerRole.Source);
        (KvmHost Host, WorkerSummary Worker) main = Of(parts, WorkerRole.Main);
        WorkerSpec spec = (source.Worker ?? main.Worker ?? parts[0].Worker).Spec;
        WorkerSpec[] specs = [.. parts.Select(p => p.Worker.Spec)];
        string[] subs = [.. specs.SelectMany(s => s.Peers).Where(p => p.Role == WorkerRole.Sub).OrderBy(p => p.SubIndex)
            .Select(p => p.Host).Distinct()];
        if (subs.Length == 0)
        {
            subs = [.. parts.Where(p => p.Worker.Spec.Role == WorkerRole.Sub).Select(p => p.Host.Name)];
        }

        // The main host's worker may know that the VM arrived when the source's is gone.
        MigrationStatus status = source.Worker?.Status?.Migration ?? main.Worker?.Status?.Migration ?? new MigrationStatus();
        if (main.Worker?.Status?.Paging is { VmRunning: true } && status.State is not (MigrationState.Completed or MigrationState.PostCopy))
        {
            status = status.Clone();
            status.State = MigrationState.Completed;
        }

        return new SplitMigration(
            spec, status, source.Host, source.Host?.Name ?? PeerName(specs, WorkerRole.Source),
            main.Host?.Name ?? PeerName(specs, WorkerRole.Main), subs,
            specs.Max(s => s.MainMemoryBytes));
    }

    private static (KvmHost Host, WorkerSummary Worker) Of((KvmHost Host, WorkerSummary Worker)[] parts, WorkerRole role) =>
        parts.FirstOrDefault(p => p.Worker.Spec.Role == role);

    private static string PeerName(WorkerSpec[] specs, WorkerRole role) =>
        specs.SelectMany(s => s.Peers).FirstOrDefault(p => p.Role == role)?.Host ?? "";
}
