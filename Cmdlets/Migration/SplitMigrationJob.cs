using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>A split migration as a job. Stopping it stops the migration while that is possible; removing it or leaving PowerShell does not.</summary>
public sealed class SplitMigrationJob : BackgroundJob
{
    private readonly SplitMigrationTask _task;

    internal SplitMigrationJob(string command, SplitMigrationTask task)
        : base(command, $"Split {task.Plan.Vm.Name}", task.Plan.Vm.Name, task.Plan.Request.Source.Name)
    {
        _task = task;
        foreach (string warning in task.Plan.Warnings)
        {
            Warning.Add(new WarningRecord(warning));
        }
    }

    private protected override async Task WorkAsync(CancellationToken stop) => Write(await _task.RunAsync(Note, stop).ConfigureAwait(false));
}
