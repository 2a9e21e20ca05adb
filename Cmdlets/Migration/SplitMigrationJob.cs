using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>
/// A split migration as a PowerShell job: Wait-Job, Receive-Job and Stop-Job work as usual. Stopping it stops the migration
/// while that is possible; removing it or leaving PowerShell does not.
/// </summary>
public sealed class SplitMigrationJob : Job
{
    private readonly SplitMigrationTask _task;
    private readonly CancellationTokenSource _stop = new();
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);

    internal SplitMigrationJob(string command, SplitMigrationTask task)
        : base(command, $"Split {task.Plan.Vm.Name}")
    {
        _task = task;
        PSJobTypeName = "SplitMigrationJob";
    }

    /// <inheritdoc/>
    public override bool HasMoreData => Output.Count > 0 || Error.Count > 0 || Warning.Count > 0 || Progress.Count > 0;

    /// <inheritdoc/>
    public override string Location => _task.Plan.Request.Source.Name;

    /// <inheritdoc/>
    public override string StatusMessage => _statusMessage;

    private volatile string _statusMessage = "";

    /// <inheritdoc/>
    public override void StopJob()
    {
        _stop.Cancel();
        _ended.Task.Wait();
    }

    internal void Start()
    {
        foreach (string warning in _task.Plan.Warnings)
        {
            Warning.Add(new WarningRecord(warning));
        }

        SetJobState(JobState.Running);
        _ = Task.Run(RunAsync);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing && _ended.Task.IsCompleted)
        {
            _stop.Dispose();
        }

        base.Dispose(disposing);
    }

    private async Task RunAsync()
    {
        JobState state;
        try
        {
            SplitMigration result = await _task.RunAsync(Note, _stop.Token).ConfigureAwait(false);
            Output.Add(PSObject.AsPSObject(result));
            state = JobState.Completed;
        }
        catch (FCtransException e)
        {
            Error.Add(Errors.Record(e, _task.Plan.Vm.Name));
            state = e.ErrorId == nameof(Failure.MigrationAborted) && _stop.IsCancellationRequested ? JobState.Stopped : JobState.Failed;
        }
        catch (Exception e)
        {
            Error.Add(new ErrorRecord(e, nameof(Failure.UnexpectedFailure), ErrorCategory.NotSpecified, _task.Plan.Vm.Name));
            state = JobState.Failed;
        }

        try
        {
            SetJobState(state);
        }
        finally
        {
            _ended.SetResult();
        }
    }

    private void Note(ProgressRecord record)
    {
        if (record.ParentActivityId < 0)
        {
            _statusMessage = record.StatusDescription;
        }

        try
        {
            Progress.Add(record);
        }
        catch (Exception e) when (e is PSInvalidOperationException or ObjectDisposedException)
        {
            // The job was removed; the migration is not.
        }
    }
}
