using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>A checked split migration that can be run by a cmdlet that waits or by a job; tells its progress as records.</summary>
internal sealed class SplitMigrationTask
{
    private const int FirstActivity = 4200;

    private readonly KvmHost _source;
    private readonly string _vm;

    public SplitMigrationTask(KvmHost source, SplitMigrationPlan plan)
    {
        _source = source;
        Plan = plan;
        _vm = plan.Vm.Name;
    }

    public SplitMigrationPlan Plan { get; }

    /// <summary>Runs to the end; cancelling gives it up while that is possible.</summary>
    public async Task<SplitMigration> RunAsync(Action<ProgressRecord> progress, CancellationToken cancellation)
    {
        var runner = new SplitMigrationRunner(Plan, p => Tell(p, progress));
        try
        {
            return new SplitMigration(await runner.RunAsync(cancellation).ConfigureAwait(false), _source);
        }
        finally
        {
            progress(new ProgressRecord(FirstActivity, Activity, "done") { RecordType = ProgressRecordType.Completed });
        }
    }

    private string Activity => $"Split migration of {_vm}";

    private void Tell(SplitMigrationProgress step, Action<ProgressRecord> progress)
    {
        if (step.Status is not { } status)
        {
            progress(new ProgressRecord(FirstActivity, Activity, step.Step));
            return;
        }

        double remaining = status.RemainingPages * 4096.0;
        double whole = Math.Max(status.UsedPages * 4096.0, remaining);
        string text = step.Step.Length > 0 ? step.Step : status.State switch
        {
            MigrationState.Preparing => "connecting the hosts",
            MigrationState.PreCopy =>
                $"round {status.Round}: {Loader.Display.Bytes(remaining)} to go, {Loader.Display.Bytes(status.BytesPerSecond)}/s, "
                + $"the guest writes {Loader.Display.Bytes(status.DirtyPagesPerSecond * 4096)}/s",
            MigrationState.SwitchOver => "switching over",
            MigrationState.PostCopy => $"the VM runs on its new host; {Loader.Display.Bytes(remaining)} still come from the source",
            _ => status.State.ToString(),
        };
        var record = new ProgressRecord(FirstActivity, Activity, text);
        if (whole > 0 && status.State is MigrationState.PreCopy or MigrationState.SwitchOver)
        {
            record.PercentComplete = Math.Clamp((int)(100 * (1 - (remaining / whole))), 0, 100);
            if (status.BytesPerSecond > 0 && remaining / status.BytesPerSecond < int.MaxValue)
            {
                record.SecondsRemaining = (int)Math.Ceiling(remaining / status.BytesPerSecond);
            }
        }

        progress(record);
        for (int i = 0; i < status.Traffic.Count; i++)
        {
            HostTraffic traffic = status.Traffic[i];
            progress(new ProgressRecord(
                FirstActivity + 1 + i, $"{(traffic.Role == WorkerRole.Main ? "main host" : "sub-host")} {traffic.Host}",
                $"{Loader.Display.Bytes(traffic.BytesSent)} sent")
            {
                ParentActivityId = FirstActivity,
            });
        }
    }
}
