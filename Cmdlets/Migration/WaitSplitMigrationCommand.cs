using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>
/// Wait-SplitMigration: waits until migrations have ended, well or badly, and writes how. From any PowerShell, not only the one that
/// started them; Ctrl+C ends the waiting only.
/// </summary>
[Cmdlet(VerbsLifecycle.Wait, "SplitMigration", DefaultParameterSetName = "VM")]
[OutputType(typeof(SplitMigration))]
public sealed class WaitSplitMigrationCommand : FCtransCmdlet
{
    private static readonly TimeSpan s_firstPause = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(1);

    /// <summary>The migration, from Get-SplitMigration.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "Migration", ValueFromPipeline = true)]
    [ValidateNotNull]
    public SplitMigration Migration { get; set; } = null!;

    /// <summary>The migration's id.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "Id")]
    [ValidateNotNullOrEmpty]
    public string SplitId { get; set; } = "";

    /// <summary>The VM, or its name; its newest migration is meant.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = "VM", ValueFromPipeline = true)]
    [Alias("Name")]
    [ValidateNotNull]
    public VmReference VM { get; set; } = null!;

    /// <summary>How long to wait. Default: as long as it takes.</summary>
    [Parameter]
    public TimeSpan? Timeout { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        string? id = ParameterSetName switch { "Migration" => Migration.SplitId, "Id" => SplitId, _ => null };
        ForItem(id ?? VM.ToString(), () => WriteObject(Await(stop => WaitAsync(id, stop))));
    }

    private async Task<SplitMigration> WaitAsync(string? id, CancellationToken stop)
    {
        long began = Environment.TickCount64;
        TimeSpan pause = s_firstPause;
        while (true)
        {
            SplitMigration migration = await SplitMigrationCatalog.FindAsync(id, VM?.ToString() ?? "", stop).ConfigureAwait(false);
            id = migration.SplitId;
            if (migration.State is nameof(MigrationState.Completed) or nameof(MigrationState.Failed) or nameof(MigrationState.Aborted))
            {
                return migration;
            }

            if (Timeout is { } limit && Environment.TickCount64 - began >= limit.TotalMilliseconds)
            {
                throw Failure.MigrationNotEnded(migration.VM, migration.State, limit);
            }

            await Task.Delay(pause, stop).ConfigureAwait(false);
            pause = pause * 2 < s_longestPause ? pause * 2 : s_longestPause;
        }
    }
}
