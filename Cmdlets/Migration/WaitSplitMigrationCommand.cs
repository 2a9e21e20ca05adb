using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>
/// Wait-SplitMigration: waits until migrations have ended, well or badly, and writes how. From any PowerShell, not only the one that
/// started them; Ctrl+C ends the waiting only.
/// </summary>
[Cmdlet(VerbsLifecycle.Wait, "SplitMigration", DefaultParameterSetName = VMSet)]
[OutputType(typeof(SplitMigration))]
public sealed class WaitSplitMigrationCommand : OneMigrationCmdlet
{
    private static readonly TimeSpan s_firstPause = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(1);

    /// <summary>How long to wait. Default: as long as it takes.</summary>
    [Parameter]
    public TimeSpan? Timeout { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        string? id = WantedId;
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
            if (migration.HasEnded)
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
