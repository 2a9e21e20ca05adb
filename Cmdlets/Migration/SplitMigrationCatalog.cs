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

    /// <summary>Looks on all connected hosts for a migration. A VM may have been moved before: the newest is meant.</summary>
    /// <param name="id">Its split id; null: look by the VM.</param>
    /// <param name="vm">The VM's name.</param>
    /// <param name="stop">Gives the search up.</param>
    /// <exception cref="FCtransException">MigrationNotFound, NoHostConnected, or why a host that may know does not answer.</exception>
    public static async Task<SplitMigration> FindAsync(string? id, string vm, CancellationToken stop)
    {
        SplitMigration[] found = await HostRegistry.SearchAsync(
            h => h.ListWorkersAsync(stop),
            all => From(all.SelectMany(p => p.Answer.Select(w => (p.Host, w))))
                .Where(m => id is null ? m.VM == vm : string.Equals(m.SplitId, id, StringComparison.OrdinalIgnoreCase)))
            .ConfigureAwait(false);
        return found.LastOrDefault() ?? throw Failure.MigrationNotFound(id ?? $"of a VM '{vm}'");
    }

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
