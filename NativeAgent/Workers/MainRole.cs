using System.Net;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;

namespace FCtrans.Agent.Workers;

/// <summary>
/// The main host's worker: receives the VM, runs it when the source commits, and serves its remote paging until it ends.
/// Started again after it was killed, it goes on where the directory's markers say: a VM that was not complete yet is given
/// up (it runs at the source); a complete one is served again, and runs if it ran or if the source says so.
/// </summary>
internal sealed partial class MainRole : IWorkerRole, IMigrationEvents
{
    private const string PinnedFile = "pinned-pages";
    private const string EndedMessage = "The VM has ended.";

    private static readonly TimeSpan s_connectTimeout = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_sourcePatience = TimeSpan.FromMinutes(2);

    /// <summary>From the moment when this worker is ready until its source comes: whoever started it may have been killed before it started that.</summary>
    private static readonly TimeSpan s_firstContact = TimeSpan.FromMinutes(5);

    /// <summary>Longer than the source tries to reach this host again: then it has given the migration up.</summary>
    private static readonly TimeSpan s_controlPatience = TimeSpan.FromSeconds(40);
    private static readonly TimeSpan s_runPause = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_exitPoll = TimeSpan.FromMilliseconds(100);

    private readonly WorkerSpec _spec;
    private readonly WorkerDirectory _directory;
    private readonly WorkerCertificate _certificate;
    private readonly Lock _stepGate = new();
    private readonly ManualResetEventSlim _giveUp = new();

    /// <summary>Signalled when there is something for <see cref="Run"/> to look at.</summary>
    private readonly EventFd _attention = new();
    private readonly int _restarts;
    private readonly PagingChoices _choices;
    private readonly SubHostRoster _roster;
    private DestinationVm? _vm;
    private UserfaultfdSet? _userfaultfds;
    private PackedPages? _packed;
    private PageTable? _table;
    private PageBitmap? _pinned;
    private Pager? _pager;
    private volatile MainReclaim? _reclaim;
    private volatile RemoteStore[] _stores = [];
    private volatile RemoteStore? _sourceStore;
    private Task _sourceTold = Task.CompletedTask;
    private MigrationReceiver? _receiver;
    private volatile string? _givenUpBecause;
    private volatile string _state = "receiving";
    private volatile int _controlConnections;
    private volatile string _controlLost = "";
    private long _controlLostAt;
    private TimeSpan _controlPatience = s_controlPatience;
    private volatile string? _notRunBecause;
    private long _triedToRunAt = long.MinValue / 2;
    private AwayPages? _away;

    public MainRole(WorkerSpec spec, WorkerDirectory directory)
    {
        _spec = spec;
        _directory = directory;
        _certificate = WorkerCertificate.Load(directory.Path);
        _restarts = directory.ReadNumber(Markers.Restarts);
        _choices = new(spec, directory);
        _roster = new(spec, directory, _certificate, PageCount);
    }

    public void Run(Action<int> ready, CancellationToken stop)
    {
        bool restarted = _directory.Has(Markers.Ready);
        if (!restarted)
        {
            Begin();
        }
        else if (!Find())
        {
            End(_directory.Has(Markers.Running) ? EndedMessage : "The main host's worker was killed before the VM was complete here.");
            return;
        }

        using var listener = Listen(_directory.ReadNumber(Markers.Ready));
        listener.Start();
        if (!restarted)
        {
            _controlPatience = Patience.Of("main.first-contact", s_firstContact);
            Interlocked.Exchange(ref _controlLostAt, Environment.TickCount64);
            _controlLost = "it never came";
            ready(listener.Port);
        }
        else
        {
            _resumed = () => ready(listener.Port);
            BeginResuming();
        }

        using var stopping = stop.Register(_attention.Signal);
        while (!_vm!.WaitExit(_attention, IsSettled ? Timeout.InfiniteTimeSpan : s_exitPoll))
        {
            _attention.Drain();
            GiveUpWithoutSource();
            if (_giveUp.IsSet)
            {
                End(_givenUpBecause!);
                return;
            }

            if (stop.IsCancellationRequested)
            {
                // Everything stays as it is for the worker that comes next.
                return;
            }

            ContinueResuming();
            RunIfCommitted();
            if (_state == "paging" && _pager is { } pager)
            {
                _roster.Dismiss(pager, _stores);
            }
        }

        End(_directory.Has(Markers.Running) ? EndedMessage : "The destination's QEMU ended before the VM ran.");
    }

    public bool IsOver => _state == "ended";

    public WorkerStatus Snapshot()
    {
        var paging = _pager is { } pager ? PagingReport.Of(pager.Snapshot()) : new PagingStatus();
        if (_state != "paging")
        {
            paging.State = _state;
        }

        paging.Error = _givenUpBecause ?? (_pager is null ? WhatIsAwaited() : _notRunBecause) ?? paging.Error;
        paging.LimitBytes = _choices.MainMemoryBytes;
        paging.Prefetch = _choices.Prefetch;
        Peer[] subs = _roster.Subs;
        paging.SubHostStates.AddRange(subs.Select((_, i) => _roster.StateOf(i)));
        paging.EvictionPolicy = _choices.EvictionPolicy;
        paging.VmProcessId = _vm?.ProcessId ?? 0;
        paging.VmRunning = _directory.Has(Markers.Ran);
        paging.Restarts = (ulong)_restarts;
        paging.ReclaimedPages = (ulong)(_reclaim?.ReclaimedPages ?? 0);
        paging.ReclaimTurns = (ulong)(_reclaim?.Turns ?? 0);
        paging.SubHosts.AddRange(subs.Select(sub => sub.Host));
        if (_sourceStore is { } source && paging.RemotePages.Count > subs.Length)
        {
            paging.SubHosts.Add(source.Options.Host);
        }

        return new WorkerStatus
        {
            Role = WorkerRole.Main,
            SplitId = _spec.SplitId,
            VmName = _spec.VmName,
            UnixMilliseconds = DateTimeOffset.UtcNow.ToUnixTimeMilliseconds(),
            Paging = paging,
            Thumbprint = _certificate.Thumbprint,
        };
    }

    void IWorkerRole.Abort(string reason)
    {
        lock (_stepGate)
        {
            if (_directory.Has(Markers.Prepared))
            {
                throw new InvalidOperationException("The VM is complete on the main host; only its source can still give it up.");
            }

            GiveUp(reason);
        }
    }

    public IVmMemory Memory => _reclaim ?? throw new InvalidOperationException("The VM does not run on its main host yet.");

    public void SetPaging(PagingSettings settings)
    {
        lock (_stepGate)
        {
            // Before that the source decides by the limit that it was told what is sent here.
            if (!_directory.Has(Markers.Running) || _pager is not { } pager)
            {
                throw NotPaging("Change its paging");
            }

            if (settings.HasCopies && settings.Copies > 1)
            {
                _roster.CheckCopies();
                // A worker that is started again has to know what was ever so.
                _directory.Mark(Markers.TwoCopies);
            }

            _choices.Change(settings, (ulong)pager.Snapshot().ResidentPages << PageIndex.PageShift);
            pager.LimitPages = _choices.LimitPages;
            pager.Prefetch = _choices.Prefetch;
            pager.Policy = _choices.EvictionPolicy;
            pager.Copies = _choices.Copies;
        }
    }

    public void Dispose()
    {
        _resumption?.Dispose();
        _reclaim?.Dispose();
        _pager?.Stop();
        foreach (var store in _stores)
        {
            store.Dispose();
        }

        // Only ours: QEMU keeps its own copies.
        _userfaultfds?.Dispose();
        _pager?.Dispose();
        _table?.Dispose();
        _packed?.Dispose();
        _away?.Dispose();
        _pinned?.Dispose();
        _vm?.Dispose();
        _certificate.Dispose();
        _giveUp.Dispose();
        _attention.Dispose();
    }

    /// <summary>The VM runs here for good and nobody is about to leave: there is nothing to look at until somebody says so.</summary>
    private bool IsSettled => _state == "paging" && _pager is { } pager && !_roster.AnyLeaving(pager);

    private long PageCount => _spec.RamBlocks.Sum(block => (long)(block.SizeBytes >> PageIndex.PageShift));

    private void StartReclaim()
    {
        _reclaim ??= new MainReclaim(_pager!, _vm!.ProcessId, [.. _stores.Select(store => store.Options.Host)], KeepPinned);
        // While pages are still at the source, they come first: only then it looks at which of them the guest has freed.
        if (_spec.TrackUnused && !_directory.Has(Markers.SourceStore))
        {
            _reclaim.Start();
        }
    }

    /// <summary>A worker that is started again begins with the last set that could be written.</summary>
    private void KeepPinned(PageBitmap pages)
    {
        try
        {
            PageRunFile.Write(_directory.File(PinnedFile), pages);
        }
        catch (IOException e)
        {
            WorkerLog.Write($"which pages of the guest's kernel stay here can't be noted: {e.Message}");
        }
    }

    /// <summary>Runs the VM, unless it does. May be called again after it failed.</summary>
    private void RunVm()
    {
        try
        {
            FailurePoint.Reach("main.cont");
            _vm!.Run();
        }
        catch (IOException e)
        {
            _notRunBecause = $"The VM is complete and committed, and is not run yet; it is tried again. {e.Message}";
            throw;
        }

        _notRunBecause = null;
        _directory.Mark(Markers.Ran);
        _state = "paging";
        DrainSource();
        StartReclaim();
    }

    /// <summary>It was to run and could not, or the worker was killed just then: nobody but this host can run it any more, whether its source asks or not.</summary>
    private void RunIfCommitted()
    {
        lock (_stepGate)
        {
            if (_pager is null || !_directory.Has(Markers.Running) || _directory.Has(Markers.Ran)
                || Environment.TickCount64 - _triedToRunAt < s_runPause.TotalMilliseconds)
            {
                return;
            }

            _triedToRunAt = Environment.TickCount64;
            try
            {
                RunVm();
            }
            catch (IOException e)
            {
                WorkerLog.Write($"the VM could not be run: {e.Message}");
            }
        }
    }

    private PagerOptions PagerOptions() => new()
    {
        Ram = _vm!.Ram,
        Uffds = _userfaultfds!,
        Table = _table!,
        Packed = _packed,
        Pinned = _pinned,
        Stores = _stores,
        LimitPages = _choices.LimitPages,
        Gone = _roster.Gone,
        Prefetch = _choices.Prefetch,
        Policy = _choices.EvictionPolicy,
        TrackUnused = _spec.TrackUnused,
        Copies = _choices.Copies,
        MayHavePairs = _spec.Copies > 1 || _directory.Has(Markers.TwoCopies),
        StateDirectory = _directory.Path,
    };

    private void GiveUp(string reason)
    {
        _givenUpBecause ??= reason;
        _giveUp.Set();
        _attention.Signal();
    }

    /// <summary>Nothing of the VM stays on this host, and the sub-hosts may forget theirs.</summary>
    private void End(string reason)
    {
        WorkerLog.Write(reason);
        if (!_directory.Has(Markers.Running))
        {
            _givenUpBecause ??= reason;
        }

        _state = "ended";
        _resumption?.Dispose();
        _resumption = null;
        _reclaim?.Dispose();
        _pager?.Stop();
        _vm?.Kill();
        if (_directory.Has(Markers.Running) && _directory.Read(Markers.SourceStore) is { } at)
        {
            TellSource(IPEndPoint.Parse(at), EndOfSplit.Patience, reason);
        }

        _sourceTold.Wait(EndOfSplit.Patience);
        foreach (var sub in _roster.Subs)
        {
            EndOfSplit.TryTell(_spec, sub, _certificate, PageCount, reason);
        }

        DestinationVm.Remove(_directory);
    }

}
