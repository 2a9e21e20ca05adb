using System.Diagnostics;
using System.Globalization;
using System.Net;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;

namespace FCtrans.Agent.Migration;

/// <summary>
/// One migration at its source, from the first look at the VM to the moment of commitment and after it. Whatever fails before
/// the commitment leaves the VM running here; after it, this worker only asks the main host again and again to run the VM.
/// </summary>
internal sealed class SourceMigration : IDisposable
{
    public const string VmEnded = "The VM's QEMU ended at the source before the migration was committed, and the VM with it. Start the VM again.";

    private static readonly TimeSpan s_monitorTimeout = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan s_patienceWhileStopped = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan s_resumePatience = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan s_reconnectPause = TimeSpan.FromMilliseconds(200);

    /// <summary>The control connection for a last word, abort or commit, that waits for nothing that was sent before on the first.</summary>
    private const byte WordStream = 1;

    // More than one, since encryption at either end fills a core before the link is full; no more than there are cores to do it.
    private static readonly int s_lanes = Math.Clamp(Environment.ProcessorCount, 1, 4);

    private readonly WorkerSpec _spec;
    private readonly WorkerDirectory _directory;
    private readonly MigrationProgress _progress;
    private readonly WorkerCertificate _certificate;

    /// <summary>For all that leaves this host for the VM's sake, but for what the running guest waits for. Null: no limit.</summary>
    private readonly RateLimiter? _limiter;
    private readonly Peer _main;
    private readonly Peer[] _subs;
    private readonly long _pageCount;
    private readonly List<BulkSender> _senders = [];
    private SourceVm? _vm;
    private GuestRam? _ram;
    private DirtyTracker? _dirtyTracker;
    private IUnusedPages? _unusedPages;
    private PageBitmap? _kernelPages;
    private PageBitmap? _hotPages;
    private Placement? _placement;
    private ControlChannel? _control;
    private SourceStore? _left;
    private string? _lost;
    private long _began;
    private string _undoneBecause = "";
    private IReadOnlyList<Peer> _unheard = [];

    public SourceMigration(WorkerSpec spec, WorkerDirectory directory, MigrationProgress progress)
    {
        _spec = spec;
        _directory = directory;
        _progress = progress;
        _certificate = WorkerCertificate.Load(directory.Path);
        _limiter = spec.BandwidthLimitBytesPerSecond > 0 ? new RateLimiter((long)spec.BandwidthLimitBytesPerSecond) : null;
        _main = spec.Peers.Single(peer => peer.Role == WorkerRole.Main);
        _subs = [.. spec.Peers.Where(peer => peer.Role == WorkerRole.Sub).OrderBy(peer => peer.SubIndex)];
        _pageCount = spec.RamBlocks.Sum(block => (long)(block.SizeBytes >> PageIndex.PageShift));
    }

    /// <summary>Called when the migration can't be given up any more.</summary>
    public Action? Committed { private get; init; }

    /// <summary>After <see cref="Undo"/>: there was nothing left to give back.</summary>
    public bool VmHasEnded => _vm is not { HasEnded: false };

    /// <summary>Looks at the VM and connects to all hosts. Changes nothing in the VM.</summary>
    public void Prepare()
    {
        FailurePoint.Reach("source.preparing");
        long began = Stopwatch.GetTimestamp();
        OpenVm();
        KeptRam.Note(_directory, _ram!);
        LookAtGuest();
        _control = OpenControl();
        _control.SendPinned(_kernelPages!);
        var options = new SendOptions(_ram!, _spec.TrackUnused, _limiter);
        foreach (var peer in (Peer[])[_main, .. _subs])
        {
            _senders.Add(new BulkSender(
                peer.Host, options, (stream, limit, cancel) => Connect(peer, ConnectionPurpose.Bulk, limit, (byte)stream, cancel), s_lanes));
        }

        // Whoever waits for a host to take pages shall not wait on when there is no main host any more.
        _control.Failed = failure => _senders.ForEach(sender => sender.Fail(failure));
        _progress.Update(s =>
        {
            s.GuestPages = (ulong)_pageCount;
            s.Mode = _spec.Mode;
            s.Tls = _spec.Tls;
            s.PreparationSeconds = Stopwatch.GetElapsedTime(began).TotalSeconds;
        });
    }

    /// <summary>Moves the VM. Returns when it runs on the main host and nothing of it is left here.</summary>
    /// <exception cref="MigrationException">It failed before the commitment; <see cref="Undo"/> is to be called.</exception>
    /// <exception cref="OperationCanceledException">It was given up before the commitment; likewise.</exception>
    public void Move(CancellationToken cancel)
    {
        _progress.Begin();
        _began = Stopwatch.GetTimestamp();
        _dirtyTracker = DirtyTracker.Start(_ram!, _spec.VmProcessId);
        _placement = new Placement(_pageCount, _kernelPages!, _hotPages, (long)(_spec.MainMemoryBytes >> PageIndex.PageShift), SubRooms());
        using var rounds = new MigrationRounds(
            _pageCount, _dirtyTracker, _unusedPages!, _placement, [.. _senders], _control!, _progress);
        _progress.Live = status =>
        {
            CountTraffic(status);
            rounds.AddLive(status);
        };

        FailurePoint.Reach("source.pre-copy");
        var convergence = new Convergence(_spec, mayLeave: _spec.Mode != MigrationMode.PreCopy && _subs.Length < PageEntry.MaxSubs);
        if (_spec.Mode == MigrationMode.PostCopy || convergence.MayLeave || _spec.PreCopyLimitMilliseconds <= 0)
        {
            RoundsAndSwitchOver(rounds, convergence, cancel);
            return;
        }

        // Nothing may stay here, so when the user's time is over there is but one thing to do. Here, and not where the user sits: that may be gone.
        using var limited = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        var limit = TimeSpan.FromMilliseconds(Math.Min(_spec.PreCopyLimitMilliseconds, int.MaxValue));
        limited.CancelAfter(limit);
        try
        {
            RoundsAndSwitchOver(rounds, convergence, limited.Token);
        }
        catch (OperationCanceledException) when (limited.IsCancellationRequested && !cancel.IsCancellationRequested)
        {
            _progress.Update(s => s.TimeIsOver = true);
            throw new MigrationException($"The time allowed for it (-Timeout, {limit.TotalSeconds:0.#} s) was over before the VM could run on the main host.");
        }
    }

    private void RoundsAndSwitchOver(MigrationRounds rounds, Convergence convergence, CancellationToken cancel)
    {
        bool leave = _spec.Mode == MigrationMode.PostCopy;
        for (bool again = !leave; again;)
        {
            rounds.Send(cancel, convergence.MayLeave ? LimitIsOver : null);
            _progress.Update(CountTraffic);
            long dirty = rounds.Harvest();
            var next = convergence.After(rounds.Round, dirty, rounds.PagesPerSecond, LimitIsOver());
            _progress.Update(s =>
            {
                s.RemainingPages = (ulong)dirty;
                s.EstimatedSecondsLeft = convergence.EstimatedSecondsLeft;
            });
            leave = rounds.EndedEarly || next == NextStep.Leave;
            again = !leave && next == NextStep.Round;
        }

        SwitchOver(rounds, leave, mayLeave: leave || convergence.MayLeave, cancel);
    }

    private bool LimitIsOver() => _spec.PreCopyLimitMilliseconds > 0
        && Stopwatch.GetElapsedTime(_began).TotalMilliseconds > _spec.PreCopyLimitMilliseconds;

    /// <summary>After a failure or an abort before the commitment: the VM runs here as before, and the others are told.</summary>
    /// <param name="reason">For the main host's log and status.</param>
    public void Undo(string reason)
    {
        _undoneBecause = reason;
        if (_vm is null)
        {
            // A restarted worker has not looked at the VM yet.
            TryOpenVm();
        }

        bool runs = TryResume(last: false);
        _left?.Dispose();
        _left = null;
        SourceStore.Forget(_directory);
        if (_dirtyTracker is { } tracker)
        {
            tracker.Dispose();
            _dirtyTracker = null;
        }
        else if (_vm is { HasEnded: false })
        {
            DirtyTracker.RemoveLeftBehind(_spec.VmProcessId);
        }

        TellOthersToEnd(reason);
        // What kept it from running may have been the main host's QEMU, which ends now.
        for (long began = Stopwatch.GetTimestamp(); !runs;)
        {
            Thread.Sleep(s_reconnectPause);
            runs = TryResume(last: Stopwatch.GetElapsedTime(began) > s_resumePatience);
        }
    }

    /// <summary>After <see cref="Undo"/>, when whoever waits has been told the end: the others are told until they have heard it.</summary>
    public void TellOthersUntilHeard(CancellationToken stop)
    {
        // The VM's monitor has one client at a time, and the VM may be moved anew meanwhile.
        _vm?.Dispose();
        _vm = null;
        EndOfSplit.TellUntilHeard(_spec, [_main, .. _unheard], _certificate, _pageCount, _undoneBecause, stop);
    }

    /// <returns>Whether the VM runs here, or has ended.</returns>
    private bool TryResume(bool last)
    {
        try
        {
            if (_vm is { HasEnded: false } vm)
            {
                vm.Resume();
            }

            return true;
        }
        catch (Exception e) when (!last && e is MonitorException or MigrationException)
        {
            WorkerLog.Write($"the VM does not run at the source yet: {e.Message}");
            return false;
        }
    }

    /// <summary>False when the VM's QEMU has ended, which nobody here can undo.</summary>
    private bool TryOpenVm()
    {
        try
        {
            OpenVm();
            return true;
        }
        catch (Exception e) when (e is MigrationException or MonitorException or GuestRamException && !QemuIsThere())
        {
            WorkerLog.Write(e.Message);
            return false;
        }
    }

    private bool QemuIsThere() => QemuProcesses.Find().Any(p => p.Pid == _spec.VmProcessId && p.Name == _spec.VmName);

    /// <summary>After the commitment: asks the main host to run the VM until it says that it does, then ends the source's QEMU.</summary>
    public void FinishCommitted(CancellationToken stop)
    {
        ServeLeft();
        while (true)
        {
            try
            {
                _control ??= OpenControl(stream: WordStream);
                _control.Send(ControlCode.Commit);
                _control.WaitFor(ControlCode.Running, stop);
                break;
            }
            catch (Exception e) when (e is MigrationException or IOException)
            {
                WorkerLog.Write($"committed, and the main host has not confirmed yet: {e.Message}");
                _control?.Dispose();
                _control = null;
                _progress.Update(s => s.Error = "Committed; the main host does not answer yet and is asked again: " + e.Message);
                stop.WaitHandle.WaitOne(s_reconnectPause);
                stop.ThrowIfCancellationRequested();
            }
        }

        long runningAt = Stopwatch.GetTimestamp();
        _progress.Update(s => s.Error = "");
        _progress.VmRuns(runningAt);
        _progress.StopClock();
        _progress.Update(CountTraffic);
        CommittedFigures.Keep(_directory, _progress);
        WaitLeftTaken(runningAt, stop);
        // Whoever is told that it has completed finds nothing of the VM here any more.
        RemoveVm();
        _progress.Update(s => s.VmEnded = _lost is not null);
        _progress.End(_lost is null ? MigrationState.Completed : MigrationState.Failed, _lost ?? "");
    }

    public void Dispose()
    {
        foreach (var sender in _senders)
        {
            sender.Dispose();
        }

        _control?.Dispose();
        _left?.Dispose();
        _dirtyTracker?.Dispose();
        _placement?.Dispose();
        _kernelPages?.Dispose();
        _hotPages?.Dispose();
        _unusedPages?.Dispose();
        _vm?.Dispose();
        _ram?.Dispose();
        _certificate.Dispose();
    }

    private void OpenVm()
    {
        var process = QemuProcesses.Find().FirstOrDefault(p => p.Pid == _spec.VmProcessId && p.Name == _spec.VmName)
            ?? throw new MigrationException($"The VM '{_spec.VmName}' (process {_spec.VmProcessId}) does not run on this host any more.");
        var monitor = QemuMonitor.Connect(process.MonitorPath, s_monitorTimeout);
        _vm = new SourceVm(process, monitor, _directory);
        _ram = GuestRamFactory.Open(process, monitor);
        if (_ram.PageCount != _pageCount)
        {
            throw new MigrationException($"The VM has {_ram.TotalBytes} bytes of RAM, and {_pageCount << PageIndex.PageShift} were expected.");
        }

        if (!_directory.Has(Markers.Ready) && monitor.QueryStatus() is { Running: false } state)
        {
            throw new MigrationException($"The VM is '{state.State}'. Only a running VM can be moved; resume it first.");
        }
    }

    /// <summary>Finds the guest's kernel, which takes some time once, and what it needs for itself.</summary>
    private void LookAtGuest()
    {
        _unusedPages = _spec.TrackUnused ? UnusedPages.Open(_ram!, mayMap: true, _vm!.Processors) : new EverythingUsed();
        _kernelPages = new PageBitmap(_pageCount);
        using var unused = new PageBitmap(_pageCount);
        _unusedPages.Refresh(unused, null);
        _unusedPages.KernelPages(_kernelPages, unused);
        _hotPages = new PageBitmap(_pageCount);
        _unusedPages.HotPages(_hotPages, unused);
    }

    /// <param name="leave">Not all is sent before: what is left stays here, and the main host fetches it.</param>
    /// <param name="mayLeave">What turns out to be too much for the downtime when the VM stands still may stay here too.</param>
    private void SwitchOver(MigrationRounds rounds, bool leave, bool mayLeave, CancellationToken cancel)
    {
        // A VM that stands still does not wait long for a link: it had better run on here.
        foreach (var sender in _senders)
        {
            sender.Patience = s_patienceWhileStopped;
        }

        _control!.Patience = s_patienceWhileStopped;

        if (leave)
        {
            rounds.TakeBackDirty(cancel);
        }

        _progress.Update(s => s.State = MigrationState.SwitchOver);
        FailurePoint.Reach("source.switch-over");
        _vm!.StopForSwitchOver(piece => _control!.SendDeviceState(piece, last: false), cancel);
        _progress.VmStands(_vm.StoppedAt);
        rounds.Harvest();
        // The guest may have written a lot since the harvest that decided to stop it, so what is left is looked at once more.
        long pages = rounds.CountToSend();
        bool rest = mayLeave && pages > 0 && !FitsDowntime(pages, rounds.PagesPerSecond);
        using (var standstill = new Standstill(_spec, rest ? 0 : pages, rounds.PagesPerSecond, cancel))
        {
            // Whoever waits for a host to take pages shall not outwait this.
            standstill.WhenOver(failure => _senders.ForEach(sender => sender.Fail(failure)));
            try
            {
                Complete(rounds, rest, standstill.Token);
            }
            catch (OperationCanceledException) when (standstill.IsOver && !cancel.IsCancellationRequested)
            {
                throw standstill.Failure();
            }
        }

        FailurePoint.Reach("source.ready");
        cancel.ThrowIfCancellationRequested();
        FailurePoint.Reach("source.committing");

        // The moment of commitment. The marker is written first: a worker that dies right after it never resumes the VM.
        CommittedFigures.Keep(_directory, _progress);
        _directory.Mark(Markers.Committed);
        Committed?.Invoke();
        _progress.Update(s => s.CommitSent = true);
        FailurePoint.Reach("source.committed");
        FinishCommitted(CancellationToken.None);
    }

    /// <summary>With the VM stopped: returns when the main host has all of it, or knows where it is, and could run it.</summary>
    /// <param name="leaveRest">What is not there yet stays here.</param>
    private void Complete(MigrationRounds rounds, bool leaveRest, CancellationToken cancel)
    {
        if (leaveRest)
        {
            LeaveRest(rounds, cancel);
        }
        else
        {
            rounds.Send(cancel);
        }

        FailurePoint.Reach("source.last-round");
        _control!.Send(ControlCode.TableComplete);
        long bytes = _vm!.FinishDeviceState(cancel);
        _control.SendDeviceState(default, last: true);
        _progress.Update(s => s.DeviceStateBytes = (ulong)bytes);
        _control.WaitFor(ControlCode.Ready, cancel);
    }

    private bool FitsDowntime(long pages, double pagesPerSecond) =>
        pagesPerSecond > 0 && pages / pagesPerSecond * 1000 < Convergence.AllowedMilliseconds(_spec);

    private void LeaveRest(MigrationRounds rounds, CancellationToken cancel)
    {
        var left = rounds.Leave(_subs.Length, cancel);
        _left = SourceStore.Open(_spec, _directory, _certificate, _limiter, _control!.LocalAddress, _ram!, left);
        _control.Send(ControlCode.LeftAtSource, _left.Port.ToString(CultureInfo.InvariantCulture));
        FailurePoint.Reach("source.left");
    }

    /// <summary>After the commitment: what was left here must be had, whoever asks first.</summary>
    private void ServeLeft()
    {
        if (_left is null && SourceStore.WasOpen(_directory))
        {
            // What was left lies in the RAM files, which outlive QEMU where they have names.
            if (!TryOpenVm())
            {
                _ram?.Dispose();
                _ram = KeptRam.TryOpen(_directory);
            }

            if (_ram is null)
            {
                _lost = "The source's QEMU and worker were both killed before all of the VM's memory had left the source, and its RAM file went with "
                    + "them. The VM on the main host waits for memory that is nowhere any more. End it there, and restore it from a backup.";
                WorkerLog.Write(_lost);
                return;
            }

            _left = SourceStore.Reopen(_spec, _directory, _certificate, _limiter, _ram);
        }

        if (_left is { } left)
        {
            left.Pages.MayBeGivenUp = true;
        }
    }

    private void WaitLeftTaken(long runningAt, CancellationToken stop)
    {
        if (_left is not { } left)
        {
            return;
        }

        _progress.Update(s =>
        {
            s.State = MigrationState.PostCopy;
            s.LeftPagesAtSwitchOver = Math.Max(s.LeftPagesAtSwitchOver, (ulong)left.Pages.AtSwitchOver);
        });
        FailurePoint.Reach("source.post-copy");
        left.WaitTaken(
            () => _progress.Update(s =>
            {
                double seconds = Stopwatch.GetElapsedTime(runningAt).TotalSeconds;
                s.RemainingPages = (ulong)left.Pages.Count;
                s.PostCopySeconds = seconds;
                double pagesPerSecond = (left.Pages.AtSwitchOver - left.Pages.Count) / seconds;
                s.EstimatedSecondsLeft = pagesPerSecond > 0 ? left.Pages.Count / pagesPerSecond : -1;
            }),
            stop);
        _progress.Update(s =>
        {
            s.RemainingPages = 0;
            s.PostCopySeconds = Stopwatch.GetElapsedTime(runningAt).TotalSeconds;
        });
    }

    private void RemoveVm()
    {
        // It may have ended before: by itself, or by the worker before this one.
        if (_vm is not null || TryOpenVm())
        {
            _vm!.Quit(_spec.LibvirtUndefine);
        }

        KeptRam.Remove(_directory);
    }

    private long[] SubRooms()
    {
        var rooms = new long[_subs.Length];
        for (int i = 0; i < rooms.Length; i++)
        {
            ulong quota = i < _spec.SubHostQuotaBytes.Count ? _spec.SubHostQuotaBytes[i] : 0;
            rooms[i] = (long)((quota > 0 ? quota : _subs[i].FreeBytes) >> PageIndex.PageShift);
        }

        return rooms;
    }

    private void CountTraffic(MigrationStatus s)
    {
        if (_senders.Count == 0)
        {
            // The worker before this one has counted.
            return;
        }

        s.Traffic.Clear();
        s.Reconnects = (uint)(_senders.Sum(sender => sender.Reconnects) + (_control?.Reconnects ?? 0));
        for (int i = 0; i < _senders.Count; i++)
        {
            s.Traffic.Add(new HostTraffic
            {
                Host = _senders[i].Name,
                Role = i == 0 ? WorkerRole.Main : WorkerRole.Sub,
                BytesSent = (ulong)(_senders[i].BytesSent + (i == 0 && _control is { } control ? control.BytesSent : 0)),
                PageBytesSent = (ulong)_senders[i].PagesSent << PageIndex.PageShift,
                PagesSent = (ulong)_senders[i].PagesSent,
                PagesPlaced = (ulong)(_placement?.Placed(i + Placement.Main) ?? 0),
            });
        }
    }

    /// <summary>
    /// Best effort: a host that can't be reached now is told later, see <see cref="TellOthersUntilHeard"/>. All at once: whoever waits for
    /// this end shall not wait for one host after the other.
    /// </summary>
    private void TellOthersToEnd(string reason)
    {
        Task<bool>[] told = [.. _subs.Select(sub => Task.Run(() => EndOfSplit.TryTell(_spec, sub, _certificate, _pageCount, reason)))];
        try
        {
            // On one of its own: the main host may be busy with what came before on the other.
            _control?.Dispose();
            _control = OpenControl(EndOfSplit.Patience, WordStream);
            _control.Send(ControlCode.Abort, reason);
        }
        catch (Exception e) when (e is MigrationException or IOException)
        {
            WorkerLog.Write($"the main host could not be told of the end: {e.Message}");
        }

        Task.WaitAll(told);
        _unheard = [.. _subs.Where((_, i) => !told[i].Result)];
    }

    private ControlChannel OpenControl(TimeSpan? timeout = null, byte stream = 0) =>
        new((limit, cancel) => Connect(_main, ConnectionPurpose.Control, limit, stream, cancel), timeout);

    private FrameConnection Connect(Peer peer, ConnectionPurpose purpose, TimeSpan limit, byte stream, CancellationToken cancel) =>
        PeerConnector.Connect(
            IPAddress.Parse(peer.Address),
            (int)peer.Port,
            peer.Thumbprint,
            _certificate,
            new PeerHello(_spec.SplitId, WorkerRole.Source, purpose, _pageCount, Stream: stream),
            limit,
            _spec.Tls,
            out _,
            cancel);
}
