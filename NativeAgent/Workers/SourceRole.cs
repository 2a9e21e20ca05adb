using FCtrans.Agent.Migration;
using FCtrans.Contracts;

namespace FCtrans.Agent.Workers;

/// <summary>
/// The source's worker: one migration. Started again after it was killed, it never goes on with the migration: before the
/// commitment it gives the VM back as it was, after it, it only makes sure that the main host runs the VM.
/// </summary>
internal sealed class SourceRole : IWorkerRole
{
    private readonly WorkerSpec _spec;
    private readonly WorkerDirectory _directory;
    private readonly MigrationProgress _progress = new();
    private readonly SourceMigration _migration;
    private readonly CancellationTokenSource _abort = new();
    private readonly ManualResetEventSlim _committedOrEnded = new();
    private bool _undone;
    private string _abortReason = "";

    public SourceRole(WorkerSpec spec, WorkerDirectory directory)
    {
        _spec = spec;
        _directory = directory;
        _migration = new SourceMigration(spec, directory, _progress) { Committed = _committedOrEnded.Set };
    }

    public void Run(Action<int> ready, CancellationToken stop)
    {
        try
        {
            if (_directory.Has(Markers.Committed))
            {
                _committedOrEnded.Set();
                CommittedFigures.Restore(_directory, _progress);
                _progress.Update(s =>
                {
                    s.State = MigrationState.SwitchOver;
                    s.CommitSent = true;
                });
                _migration.FinishCommitted(stop);
            }
            else if (_directory.Has(Markers.Ready))
            {
                const string killed = "The source's worker was killed. The VM runs on at the source; start the migration again.";
                Undo(killed);
                End(aborted: false, killed);
            }
            else
            {
                _migration.Prepare();
                ready(0);
                Move(stop);
            }
        }
        finally
        {
            _committedOrEnded.Set();
        }
    }

    public void Linger(CancellationToken stop)
    {
        if (_undone)
        {
            _migration.TellOthersUntilHeard(stop);
        }
    }

    public bool IsOver => _progress.State.HasEnded();

    public WorkerStatus Snapshot() => new()
    {
        Role = WorkerRole.Source,
        SplitId = _spec.SplitId,
        VmName = _spec.VmName,
        UnixMilliseconds = DateTimeOffset.UtcNow.ToUnixTimeMilliseconds(),
        Migration = _progress.Snapshot(),
    };

    public void Abort(string reason)
    {
        RefuseCommitted();

        _abortReason = string.IsNullOrEmpty(reason) ? "The user gave the migration up." : reason;
        WorkerLog.Write($"to be given up: {_abortReason}");
        _abort.Cancel();
        _committedOrEnded.Wait();
        // It may have come to that before the worker looked whether to give up.
        RefuseCommitted();
        if (_progress.State != MigrationState.Aborted)
        {
            throw new InvalidOperationException($"The migration had ended already: {_progress.State}.");
        }
    }

    public void Dispose()
    {
        _migration.Dispose();
        _abort.Dispose();
        _committedOrEnded.Dispose();
    }

    private void RefuseCommitted()
    {
        if (_directory.Has(Markers.Committed))
        {
            throw new InvalidOperationException("The migration is committed: the VM runs on the main host, or is about to.");
        }
    }

    private void Undo(string reason)
    {
        _migration.Undo(reason);
        _undone = true;
    }

    private void Move(CancellationToken stop)
    {
        using var either = CancellationTokenSource.CreateLinkedTokenSource(stop, _abort.Token);
        try
        {
            _migration.Move(either.Token);
        }
        catch (Exception e) when (!_directory.Has(Markers.Committed))
        {
            bool aborted = e is OperationCanceledException;
            string reason = !aborted ? e.Message : _abort.IsCancellationRequested ? _abortReason : "The source's worker was told to stop.";
            WorkerLog.Write(aborted ? reason : $"the migration failed: {e}");
            Undo(reason);
            End(aborted, reason);
        }
    }

    /// <summary>After the undoing.</summary>
    private void End(bool aborted, string reason)
    {
        if (_migration.VmHasEnded)
        {
            _progress.Update(s => s.VmEnded = true);
            _progress.End(MigrationState.Failed, SourceMigration.VmEnded);
            return;
        }

        _progress.End(aborted ? MigrationState.Aborted : MigrationState.Failed, reason);
    }
}
