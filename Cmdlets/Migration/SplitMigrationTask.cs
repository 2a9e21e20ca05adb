using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>A checked split migration that can be run by a cmdlet that waits or by a job; tells its progress as records.</summary>
internal sealed class SplitMigrationTask(KvmHost source, SplitMigrationPlan plan)
{
    public SplitMigrationPlan Plan { get; } = plan;

    /// <summary>Runs to the end; cancelling gives it up while that is possible.</summary>
    public async Task<SplitMigration> RunAsync(Action<ProgressRecord> progress, CancellationToken cancellation)
    {
        using var writer = new SplitMigrationProgressWriter(Plan.Vm.Name, progress);
        var runner = new SplitMigrationRunner(Plan, p => writer.Tell(p.Step, p.Status));
        return new SplitMigration(await runner.RunAsync(cancellation).ConfigureAwait(false), source);
    }
}
