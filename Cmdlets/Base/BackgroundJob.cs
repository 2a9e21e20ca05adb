using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>
/// Work on a host as a PowerShell job: Wait-Job, Receive-Job and Stop-Job work as usual. Stopping it gives the work up as Ctrl+C
/// would; removing it or leaving PowerShell leaves alone what goes on on the hosts.
/// </summary>
public abstract class BackgroundJob : Job
{
    private readonly CancellationTokenSource _stop = new();
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile string _statusMessage = "";

    private protected BackgroundJob(string command, string name, string target, string location)
        : base(command, name)
    {
        Target = target;
        Location = location;
        PSJobTypeName = GetType().Name;
    }

    /// <inheritdoc/>
    public override bool HasMoreData => Output.Count > 0 || Error.Count > 0 || Warning.Count > 0 || Progress.Count > 0;

    /// <inheritdoc/>
    public override string Location { get; }

    /// <inheritdoc/>
    public override string StatusMessage => _statusMessage;

    private string Target { get; }

    /// <inheritdoc/>
    public override void StopJob()
    {
        _stop.Cancel();
        _ended.Task.Wait();
    }

    /// <summary>Starts the work, and makes it one of the session's jobs.</summary>
    internal void Start(JobRepository jobs)
    {
        jobs.Add(this);
        SetJobState(JobState.Running);
        _ = Task.Run(RunAsync);
    }

    /// <summary>The work. Ends with an exception when it failed or was given up.</summary>
    private protected abstract Task WorkAsync(CancellationToken stop);

    /// <summary>Puts a result where Receive-Job finds it.</summary>
    private protected void Write(object result) => Add(() => Output.Add(PSObject.AsPSObject(result)));

    private protected void Note(ProgressRecord record)
    {
        if (record.ParentActivityId < 0)
        {
            _statusMessage = record.StatusDescription;
        }

        Add(() => Progress.Add(record));
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

    private static void Add(Action add)
    {
        try
        {
            add();
        }
        catch (Exception e) when (e is PSInvalidOperationException or ObjectDisposedException)
        {
            // The job was removed; its work is not.
        }
    }

    private async Task RunAsync()
    {
        JobState state;
        HostCalls.Listener = call => Add(() => Verbose.Add(new VerboseRecord(FCtransCmdlet.Text(call))));
        try
        {
            await WorkAsync(_stop.Token).ConfigureAwait(false);
            state = JobState.Completed;
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested)
        {
            state = JobState.Stopped;
        }
        catch (FCtransException e)
        {
            Add(() => Error.Add(Errors.Record(e, Target)));
            state = e.ErrorId == nameof(Failure.MigrationAborted) && _stop.IsCancellationRequested ? JobState.Stopped : JobState.Failed;
        }
        catch (Exception e)
        {
            Add(() => Error.Add(Errors.Record(Failure.UnexpectedFailure(Location, e), Target)));
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
}
