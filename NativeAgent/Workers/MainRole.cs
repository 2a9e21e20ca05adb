using System.Globalization;
using System.Net;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Hypervisor;
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

    public void AddSubHost(AddSubHostRequest request)
    {
        lock (_stepGate)
        {
            if (!_directory.Has(Markers.Running) || _pager is not { } pager || _reclaim is not { } reclaim || _directory.Has(Markers.SourceStore))
            {
                throw NotPaging("Add the sub-host");
            }

            var peer = _roster.Admit(request, _spec.Copies > 1 || _directory.Has(Markers.TwoCopies));
            var store = Store(peer);
            try
            {
                Meet(store);
                FailurePoint.Reach("main.sub-host.connected");
                _roster.Note(peer);
            }
            catch
            {
                store.Dispose();
                throw;
            }

            FailurePoint.Reach("main.sub-host.noted");
            // Of the source, if it was a store, nothing is left but its place.
            _stores = [.. _stores.Take(store.Index), store];
            _sourceStore = null;
            pager.AddStore(store);
            reclaim.SubHosts = [.. _stores.Select(s => s.Options.Host)];
            WorkerLog.Write($"{peer.Host} has become a sub-host");
        }
    }

    public void RemoveSubHost(string host, bool lost)
    {
        lock (_stepGate)
        {
            if (lost && IsResuming)
            {
                _roster.GiveUpUnheard(host);
            }
            else if (!_directory.Has(Markers.Running) || _pager is not { } pager)
            {
                throw NotPaging("Remove the sub-host");
            }
            else
            {
                _roster.Remove(pager, host, lost);
            }
        }

        _attention.Signal();
    }

    public void LeftAtSource(IPAddress address, int port)
    {
        var at = new IPEndPoint(address, port);
        _directory.Mark(Markers.SourceStore, at.ToString());
        AddSourceStore(at);
    }

    public void TableComplete()
    {
        FailurePoint.Reach("main.table-complete");
        // For a worker that is started again: until it has looked into the guest itself.
        PageRunFile.Write(_directory.File(PinnedFile), _pinned!);
        // Loading the device state may read guest RAM, so its faults must be served before that.
        _away = AwayPages.Create(_directory.Path, _table!);
        _table!.Away = _away;
        _pager = new Pager(PagerOptions());
        _pager.Start();
    }

    public void DeviceState(ReadOnlySpan<byte> piece, bool last)
    {
        _vm!.FeedDeviceState(piece);
        if (!last)
        {
            return;
        }

        _vm.WaitLoaded();
        FailurePoint.Reach("main.loaded");
        lock (_stepGate)
        {
            if (_giveUp.IsSet)
            {
                throw new MigrationException(_givenUpBecause!);
            }

            _directory.Mark(Markers.Prepared);
        }
    }

    public void Commit()
    {
        lock (_stepGate)
        {
            if (!_directory.Has(Markers.Prepared))
            {
                throw new MigrationException("The source committed a VM that is not complete here.");
            }

            // Only a VM that really ran is answered for: the source ends its own at that word.
            if (_directory.Has(Markers.Ran))
            {
                return;
            }

            if (_pager is null)
            {
                throw new MigrationException($"The main host's worker was started again and can't run the VM yet. {WhatIsAwaited()}");
            }

            if (!_directory.Has(Markers.Running))
            {
                FailurePoint.Reach("main.committed");
                _directory.Mark(Markers.Running);
                FailurePoint.Reach("main.running");
            }

            RunVm();
        }
    }

    void IMigrationEvents.Abort(string reason)
    {
        lock (_stepGate)
        {
            if (!_directory.Has(Markers.Running))
            {
                GiveUp(reason);
            }
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

    private void Begin()
    {
        CheckRoom();
        // Of a worker that was killed right here.
        DestinationVm.Remove(_directory);
        try
        {
            StartVm();
        }
        catch
        {
            _vm?.Kill();
            DestinationVm.Remove(_directory);
            throw;
        }
    }

    private void StartVm()
    {
        _vm = DestinationVm.Start(_spec, _directory);
        ConnectStores();
        CheckBlocks();
        _userfaultfds = _vm.OpenUserfaultfds();
        _packed = PackedPages.Open(DestinationVm.MakePackedDirectory(_spec.SplitId), _vm.Ram.PageCount);
        _directory.Mark(Markers.Packed);
        _table = new PageTable(_vm.Ram.PageCount);
        _pinned = new PageBitmap(_vm.Ram.PageCount);
        _receiver = new MigrationReceiver(_vm.Ram, _packed, _table, _pinned, _roster.Subs.Length, this);
        _vm.ExpectDeviceState();
    }

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

    private void AddSourceStore(IPEndPoint at)
    {
        var source = _spec.Peers.Single(peer => peer.Role == WorkerRole.Source);
        _sourceStore = new RemoteStore(new RemoteStoreOptions
        {
            Index = _roster.Subs.Length,
            Host = source.Host,
            Address = at.Address,
            Port = at.Port,
            Thumbprint = source.Thumbprint,
            Certificate = _spec.Tls ? _certificate : null,
            SplitId = _spec.SplitId,
            Pages = PageCount,
            IsSource = true,
        });
        _stores = [.. _stores, _sourceStore];
        _sourceStore.Start();
    }

    /// <summary>Once the VM runs here for good, what was left at the source comes too, and the source may end.</summary>
    private void DrainSource()
    {
        if (_sourceStore is not { } source)
        {
            return;
        }

        _pager!.DrainSource(source, () =>
        {
            FailurePoint.Reach("main.drain.emptied");
            // First of all: a restarted worker must not wait for a source that has ended.
            _directory.Rename(Markers.SourceStore, Markers.SourceEmptied);
            source.Retire();
            WorkerLog.Write($"nothing is at the source any more; sub-hosts took {_pager!.TakenBySubHosts} pages from there themselves");
            TellSourceAgain();
            if (_state == "paging")
            {
                StartReclaim();
            }
        });
    }

    /// <summary>Tells the source that nothing of it is needed, until it has heard it, as long as it may be there.</summary>
    private void TellSourceAgain()
    {
        if (_directory.Read(Markers.SourceEmptied) is { } at)
        {
            _sourceTold = Task.Run(() => TellSource(IPEndPoint.Parse(at), s_sourcePatience, "all that was left there has come"));
        }
    }

    private void TellSource(IPEndPoint at, TimeSpan patience, string reason)
    {
        var source = _spec.Peers.Single(peer => peer.Role == WorkerRole.Source).Clone();
        source.Address = at.Address.ToString();
        source.Port = (uint)at.Port;
        EndOfSplit.TryTell(_spec, source, _certificate, PageCount, reason, patience);
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

    private PeerListener Listen(int port) => new(
        new PeerListenerOptions
        {
            Address = IPAddress.Parse(_spec.ListenAddress),
            Port = port,
            Role = WorkerRole.Main,
            SplitId = _spec.SplitId,
            Pages = _vm!.Ram.PageCount,
            Certificate = _spec.Tls ? _certificate : null,
            Peers = _spec.Peers.Where(peer => peer.Role == WorkerRole.Source).ToDictionary(peer => peer.Thumbprint, peer => peer.Role),
        },
        Serve);

    private void Serve(FrameConnection connection, PeerHello hello)
    {
        bool control = hello.Purpose == ConnectionPurpose.Control;
        if (control)
        {
            Interlocked.Increment(ref _controlConnections);
        }

        string why = "the source closed its connection";
        bool final = false;
        try
        {
            _receiver!.Serve(connection);
        }
        catch (Exception e) when (e is IOException or MigrationException or MonitorException or InvalidOperationException)
        {
            why = e.Message;
            // A lost connection may come again; what could not be done stays so.
            final = e is not IOException or ProtocolException;
            WorkerLog.Write($"{hello.Purpose} connection of the source ended: {e.Message}");
            TryTellSource(connection, control, e.Message);
            if (e is ProtocolException)
            {
                // It has been told why; closing over what it still sends would keep that from it.
                connection.Drain();
            }
        }

        if (control && Interlocked.Decrement(ref _controlConnections) == 0)
        {
            _controlPatience = s_controlPatience;
            _controlLost = why;
            Interlocked.Exchange(ref _controlLostAt, final ? long.MinValue : Environment.TickCount64);
            GiveUpWithoutSource();
        }
    }

    /// <summary>A VM that is not complete is of no use when its source does not come back.</summary>
    private void GiveUpWithoutSource()
    {
        if (_controlLost.Length == 0 || _controlConnections > 0)
        {
            return;
        }

        long lostAt = Interlocked.Read(ref _controlLostAt);
        if (lostAt != long.MinValue && Environment.TickCount64 - lostAt < _controlPatience.TotalMilliseconds)
        {
            return;
        }

        lock (_stepGate)
        {
            // A complete VM waits for the source's word, however long it takes: the source may have committed.
            if (!_directory.Has(Markers.Prepared))
            {
                GiveUp($"The source went away before the VM was complete: {_controlLost}.");
            }
        }
    }

    private static void TryTellSource(FrameConnection connection, bool control, string reason)
    {
        if (!control)
        {
            return;
        }

        try
        {
            connection.SendText(FrameType.Control, (byte)ControlCode.Failed, reason);
        }
        catch (IOException)
        {
            // It has gone, and finds out by that.
        }
    }

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

    private void CheckRoom()
    {
        long free = new DriveInfo("/dev/shm").AvailableFreeSpace;
        if (free < (long)_spec.MainMemoryBytes)
        {
            throw new MigrationException(string.Create(
                CultureInfo.InvariantCulture,
                $"The main host's /dev/shm has {free} bytes free, and the VM is to have {_spec.MainMemoryBytes} there. Enlarge it (mount -o remount,size=…), or give a smaller -MainMemory."));
        }
    }

    private void CheckBlocks()
    {
        var blocks = _vm!.Ram.Blocks;
        bool same = blocks.Length == _spec.RamBlocks.Count;
        for (int i = 0; same && i < blocks.Length; i++)
        {
            same = blocks[i].Id == _spec.RamBlocks[i].Id && (ulong)blocks[i].PageCount << PageIndex.PageShift == _spec.RamBlocks[i].SizeBytes;
        }

        if (!same)
        {
            throw new MigrationException("The destination's QEMU has other RAM blocks than the source's.");
        }
    }

    private void StartStores()
    {
        _stores = [.. _roster.Subs.Select(Store)];
        int[] gone = _roster.Gone;
        foreach (var store in _stores.Where(s => !gone.Contains(s.Index)))
        {
            store.Start();
        }
    }

    private void ConnectStores()
    {
        StartStores();
        foreach (var store in _stores)
        {
            if (!SpinWait.SpinUntil(() => store.IsConnected, s_connectTimeout))
            {
                throw new MigrationException($"The main host can't reach sub-host {store.Options.Host}: {store.Problem}");
            }
        }
    }

    /// <summary>Connects to a store that is to come, which must have nothing of this VM: it would be taken for the VM's after a restart.</summary>
    private static void Meet(RemoteStore store)
    {
        store.Start();
        if (!SpinWait.SpinUntil(() => store.IsConnected, s_connectTimeout))
        {
            throw new InvalidOperationException($"The main host can't reach {store.Options.Host}: {store.Problem}");
        }

        long held = 0;
        using var patience = new CancellationTokenSource(s_connectTimeout);
        try
        {
            store.Bulk.List(range => held += range.Count, patience.Token);
        }
        catch (OperationCanceledException)
        {
            throw new InvalidOperationException($"{store.Options.Host} does not say what it stores: {store.Problem}");
        }

        if (held > 0)
        {
            throw new InvalidOperationException($"{store.Options.Host} stores {held >> 8} MiB of this VM already, which nobody put there.");
        }
    }

    private RemoteStore Store(Peer sub) => new(new RemoteStoreOptions
    {
        Index = (int)sub.SubIndex,
        Host = sub.Host,
        Address = IPAddress.Parse(sub.Address),
        Port = (int)sub.Port,
        Thumbprint = sub.Thumbprint,
        Certificate = _spec.Tls ? _certificate : null,
        SplitId = _spec.SplitId,
        Pages = PageCount,
    });
}
