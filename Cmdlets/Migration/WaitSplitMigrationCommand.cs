using System.Diagnostics;
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
public sealed class WaitSplitMigrationCommand : MigrationCmdlet
{
    private static readonly TimeSpan s_firstPause = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(1);

    /// <summary>
    /// How long to wait, for all of them together: seconds (600), a number with a unit ('10m'), or hours, minutes and seconds (0:10:00).
    /// Default: as long as it takes.
    /// </summary>
    [Parameter]
    [Duration]
    public TimeSpan? Timeout { get; set; }

    private long _began;

    /// <inheritdoc/>
    protected override void BeginProcessing()
    {
        try
        {
            Duration.Check(nameof(Timeout), Timeout);
        }
        catch (FCtransException e)
        {
            ThrowTerminatingError(Errors.Record(e, null));
        }
    }

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        // Not from the cmdlet's beginning: what comes before it in the pipeline may take long.
        _began = _began > 0 ? _began : Stopwatch.GetTimestamp();
        ForMigrations((migration, _) => WriteObject(Await((post, stop) => WaitAsync(migration, record => post(() => WriteProgress(record)), stop))));
    }

    private async Task<SplitMigration> WaitAsync(SplitMigration migration, Action<ProgressRecord> progress, CancellationToken stop)
    {
        using var writer = new SplitMigrationProgressWriter(migration.VM, progress);
        TimeSpan pause = s_firstPause;
        while (!migration.HasEnded)
        {
            if (Timeout is { } limit && Stopwatch.GetElapsedTime(_began) >= limit)
            {
                throw Failure.MigrationNotEnded(migration.VM, migration.State, limit);
            }

            writer.Tell("", migration.Status);
            await Task.Delay(pause, stop).ConfigureAwait(false);
            pause = pause * 2 < s_longestPause ? pause * 2 : s_longestPause;
            migration = await SplitMigrationCatalog.FindAsync(migration.SplitId, stop).ConfigureAwait(false);
        }

        return migration;
    }
}
