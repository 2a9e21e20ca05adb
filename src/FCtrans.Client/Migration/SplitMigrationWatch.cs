using FCtrans.Contracts;

namespace FCtrans.Client;

/// <summary>
/// Watches the source's worker until the migration has ended, over as many connections as it takes, and tells it to give up
/// when asked. When the worker itself is gone, finds out from the hosts what became of the VM.
/// </summary>
internal sealed class SplitMigrationWatch : IDisposable
{
    private static readonly TimeSpan s_interval = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan s_firstPause = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(2);

    /// <summary>How long an unreachable host is asked again. The migration itself does not depend on it.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(2);

    /// <summary>How long a worker that died may take to be started again and to say how it ended.</summary>
    private static readonly TimeSpan s_restartLimit = TimeSpan.FromSeconds(20);

    private readonly SplitMigrationPlan _plan;
    private readonly string _splitId;
    private readonly Action<SplitMigrationProgress> _progress;
    private readonly CancellationTokenSource _timeout = new();
    private MigrationStatus _last = new() { State = MigrationState.Preparing };
    private bool _abortAsked;

    public SplitMigrationWatch(SplitMigrationPlan plan, string splitId, Action<SplitMigrationProgress> progress)
    {
        _plan = plan;
        _splitId = splitId;
        _progress = progress;
    }

    /// <summary>Whether the time that the user allowed was over, and that is why it was given up.</summary>
    public bool TimedOut { get; private set; }

    /// <summary>The figures at the end.</summary>
    /// <exception cref="FCtransException">MigrationOutcomeUnknown, ConnectionLost.</exception>
    public async Task<MigrationStatus> ToEndAsync(CancellationToken cancellation)
    {
        if (_plan.Request is { Timeout: { } limit, Mode: MigrationMode.PreCopy })
        {
            _timeout.CancelAfter(limit);
        }

        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation, _timeout.Token);
        TimeSpan pause = s_firstPause;
        long quietSince = Environment.TickCount64;
        long deadSince = -1;
        while (true)
        {
            bool heard = await WatchOnceAsync(stop.Token).ConfigureAwait(false);
            if (_last?.State.HasEnded() == true)
            {
                return _last;
            }

            if (stop.IsCancellationRequested && !_abortAsked)
            {
                await AbortAsync().ConfigureAwait(false);
                continue;
            }

            if (heard)
            {
                quietSince = Environment.TickCount64;
                deadSince = -1;
                pause = s_firstPause;
            }

            string? gone = null;
            try
            {
                WorkerSummary? summary = await FindSourceAsync().ConfigureAwait(false);
                quietSince = Environment.TickCount64;
                if (summary?.Status?.Migration?.State.HasEnded() == true)
                {
                    return summary!.Status.Migration;
                }

                if (summary is null)
                {
                    gone = "its worker is gone";
                }
                else if (summary.Running)
                {
                    deadSince = -1;
                }
                else if (deadSince < 0)
                {
                    deadSince = Environment.TickCount64;
                }
                else if (Environment.TickCount64 - deadSince > s_restartLimit.TotalMilliseconds)
                {
                    gone = "its worker died";
                }
            }
            catch (FCtransException) when (Environment.TickCount64 - quietSince < s_patience.TotalMilliseconds)
            {
                // Not reachable now: the next turn tries again.
            }

            if (gone is not null)
            {
                return await WithoutSourceAsync(gone).ConfigureAwait(false);
            }

            await Task.Delay(pause, CancellationToken.None).ConfigureAwait(false);
            pause = pause * 2 < s_longestPause ? pause * 2 : s_longestPause;
        }
    }

    public void Dispose() => _timeout.Dispose();

    /// <summary>Follows one connection until it breaks, the work ends, or we are to stop. Says whether anything was heard.</summary>
    private async Task<bool> WatchOnceAsync(CancellationToken stop)
    {
        bool heard = false;
        try
        {
            WorkerConnection worker = Connect();

            // Once given up, the end is waited for without a way out: it comes soon, or the worker is dead.
            CancellationToken token = _abortAsked ? CancellationToken.None : stop;
            await foreach (WorkerStatus status in worker.WatchAsync(s_interval, token).ConfigureAwait(false))
            {
                if (status.Migration is { } migration)
                {
                    heard = true;
                    _last = migration;
                    _progress(new SplitMigrationProgress("", migration));
                    if (migration.State.HasEnded())
                    {
                        break;
                    }
                }
            }
        }
        catch (OperationCanceledException)
        {
        }
        catch (FCtransException)
        {
            // A broken connection says nothing of the migration.
        }

        return heard;
    }

    private async Task AbortAsync()
    {
        _abortAsked = true;
        TimedOut = _timeout.IsCancellationRequested;
        _progress(new SplitMigrationProgress("stopping", _last));
        try
        {
            WorkerConnection worker = Connect();
            WorkerStatus status = await worker
                .AbortAsync(TimedOut ? "the time allowed is over" : "the user stopped it", CancellationToken.None)
                .ConfigureAwait(false);
            _last = status.Migration ?? _last;
        }
        catch (FCtransException)
        {
            // Committed already, or ended, or out of reach: watching tells.
        }
    }

    private WorkerConnection Connect() =>
        _plan.Request.Source.ConnectWorker(_splitId, WorkerRole.Source, _plan.Vm.Name);

    private async Task<WorkerSummary?> FindSourceAsync() =>
        (await _plan.Request.Source.ListWorkersAsync(CancellationToken.None).ConfigureAwait(false))
        .FirstOrDefault(w => w.Spec.SplitId == _splitId && w.Spec.Role == WorkerRole.Source);

    /// <summary>The source can't say any more how it ended. The main host knows whether it runs the VM.</summary>
    private async Task<MigrationStatus> WithoutSourceAsync(string what)
    {
        WorkerSummary? main;
        try
        {
            main = (await _plan.Request.MainHost.ListWorkersAsync(CancellationToken.None).ConfigureAwait(false))
                .FirstOrDefault(w => w.Spec.SplitId == _splitId && w.Spec.Role == WorkerRole.Main);
        }
        catch (FCtransException e)
        {
            throw Failure.MigrationOutcomeUnknown(_plan.Vm.Name, $"{what}, and the main host does not answer ({e.Message})");
        }

        if (main?.Status?.Paging is { VmRunning: true })
        {
            MigrationStatus status = main.Status.Migration?.Clone() ?? _last.Clone();
            status.State = MigrationState.Completed;
            return status;
        }

        if (_last.CommitSent || main?.Status?.Migration is { CommitSent: true })
        {
            throw Failure.MigrationOutcomeUnknown(_plan.Vm.Name, what);
        }

        MigrationStatus failed = _last.Clone();
        failed.State = MigrationState.Failed;
        failed.Error = failed.Error.Length > 0 ? failed.Error : what;
        return failed;
    }
}
