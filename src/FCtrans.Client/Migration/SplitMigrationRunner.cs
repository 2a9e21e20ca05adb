using System.Security.Cryptography;
using FCtrans.Contracts;
using Grpc.Core;

namespace FCtrans.Client;

/// <summary>
/// Brings the workers of a split VM into being and watches the migration. The source's worker does the work: once it was
/// started, this class only looks on, and its end does not end the migration, unless it is told to stop.
/// </summary>
/// <remarks>
/// Order: prepare all (key pairs) → start the sub-hosts → start the main host, which is told where they listen → start the
/// source, which is told of all. Before the source has started, any failure takes everything back. Afterwards a worker is
/// removed only once the source has said that the VM stays, and never by force: a host refuses as long as a VM needs it.
/// </remarks>
public sealed class SplitMigrationRunner
{
    private readonly SplitMigrationPlan _plan;
    private readonly Action<SplitMigrationProgress> _progress;
    private readonly List<(KvmHostConnection Host, WorkerRole Role)> _prepared = [];
    private readonly object _preparedLock = new();

    /// <summary><paramref name="progress"/> is called on the thread pool, one call at a time.</summary>
    public SplitMigrationRunner(SplitMigrationPlan plan, Action<SplitMigrationProgress> progress)
    {
        _plan = plan;
        _progress = progress;
        SplitId = RandomNumberGenerator.GetHexString(32, lowercase: true);
    }

    /// <summary>The id of the split VM: 128 random bits.</summary>
    public string SplitId { get; }

    /// <summary>
    /// Runs the migration to its end. Cancelling gives it up before the commitment; after it, the migration ends as it would.
    /// </summary>
    /// <exception cref="FCtransException">
    /// MigrationNotStarted, MigrationFailed, MigrationAborted, MigrationTimeout, MigrationOutcomeUnknown, ConnectionLost (it
    /// goes on unwatched).
    /// </exception>
    public async Task<SplitMigrationOutcome> RunAsync(CancellationToken cancellation)
    {
        SplitMigrationRequest request = _plan.Request;
        string vm = _plan.Vm.Name;
        bool maybeStarted = false;
        WorkerSpec source;
        try
        {
            source = await PrepareHostsAsync(cancellation).ConfigureAwait(false);
            _progress(new SplitMigrationProgress("starting the source", null));
            cancellation.ThrowIfCancellationRequested();
            maybeStarted = true;
            try
            {
                // Not cancelled half-way: whether it has begun must not be a guess.
                await request.Source.StartWorkerAsync(source, CancellationToken.None).ConfigureAwait(false);
            }
            catch (FCtransException e) when (e.Kind is not (FailureKind.Connection or FailureKind.Timeout))
            {
                maybeStarted = false;
                throw NotStarted(request.Source, e);
            }
            catch (FCtransException)
            {
                // It may have begun all the same. Watching finds out, over a new connection.
            }
        }
        catch (Exception e) when (!maybeStarted)
        {
            await RemoveWorkersAsync(force: true).ConfigureAwait(false);
            if (e is OperationCanceledException)
            {
                throw Failure.MigrationAborted(vm, "");
            }

            throw;
        }

        using var watch = new SplitMigrationWatch(_plan, SplitId, _progress);
        MigrationStatus status = await watch.ToEndAsync(cancellation).ConfigureAwait(false);
        if (status.State == MigrationState.Completed)
        {
            return new SplitMigrationOutcome(SplitId, _plan, source, status);
        }

        string left = await RemoveWorkersAsync(force: false).ConfigureAwait(false);
        throw watch.TimedOut || (status.TimeIsOver && request.Timeout is not null) ? Failure.MigrationTimeout(vm, request.Timeout!.Value)
            : status.State == MigrationState.Aborted ? Failure.MigrationAborted(vm, left)
            : Failure.MigrationFailed(vm, status.Error, left, status.VmEnded);
    }

    /// <summary>Prepares all workers, starts those of the sub-hosts and the main host, and returns the source's specification.</summary>
    private async Task<WorkerSpec> PrepareHostsAsync(CancellationToken cancellation)
    {
        SplitMigrationRequest request = _plan.Request;
        _progress(new SplitMigrationProgress("preparing the hosts", null));
        Task<string> sourcePrint = PrepareAsync(request.Source, WorkerRole.Source, cancellation);
        Task<string> mainPrint = PrepareAsync(request.MainHost, WorkerRole.Main, cancellation);
        Task<string>[] subPrints = [.. request.SubHosts.Select(h => PrepareAsync(h, WorkerRole.Sub, cancellation))];
        await Task.WhenAll([sourcePrint, mainPrint, .. subPrints]).ConfigureAwait(false);

        var sourcePeer = new Peer { Role = WorkerRole.Source, Host = request.Source.Name, Thumbprint = sourcePrint.Result };
        var mainPeer = new Peer { Role = WorkerRole.Main, Host = request.MainHost.Name, Thumbprint = mainPrint.Result };

        _progress(new SplitMigrationProgress("starting the sub-hosts", null));
        Task<Peer>[] starting = [.. request.SubHosts.Select((host, index) => StartSubAsync(
            host, index, subPrints[index].Result, [sourcePeer, mainPeer], cancellation))];
        Peer[] subPeers = await Task.WhenAll(starting).ConfigureAwait(false);

        _progress(new SplitMigrationProgress("starting the main host", null));
        WorkerSpec main = NewSpec(WorkerRole.Main, [sourcePeer, .. subPeers]);
        main.ListenAddress = request.MainHost.DataAddress;
        main.MainMemoryBytes = _plan.MainMemoryBytes;
        main.Copies = (uint)request.Copies;
        main.QemuCommandLine.AddRange(SplitMigrationPlan.CommandLine(request, _plan.Vm));
        main.FilteredProcessorFeatures.AddRange(_plan.Vm.FilteredProcessorFeatures);
        main.ProcessorKnown = _plan.Vm.ProcessorKnown;
        bool moveDefinition = _plan.Domain is { Persistent: true } && request.MovePersistentDomain;
        if (_plan.Domain is { } domain)
        {
            main.LibvirtXml = domain.Xml;
            main.LibvirtPersistentXml = moveDefinition ? domain.PersistentXml : "";
        }

        StartedWorker mainStarted = await StartAsync(request.MainHost, main, cancellation).ConfigureAwait(false);

        WorkerSpec source = NewSpec(
            WorkerRole.Source, [Reachable(mainPeer, request.MainHost.DataAddress, mainStarted.DataPort), .. subPeers]);
        source.VmProcessId = _plan.Vm.ProcessId;
        source.MonitorPath = _plan.Vm.MonitorPath;
        source.LibvirtUndefine = moveDefinition;
        source.MainMemoryBytes = _plan.MainMemoryBytes;
        source.MaxDowntimeMilliseconds = request.MaxDowntime.TotalMilliseconds;
        source.MaxRounds = request.MaxRounds;
        source.Mode = request.Mode;
        source.PreCopyLimitMilliseconds = request.Timeout?.TotalMilliseconds ?? 0;
        source.BandwidthLimitBytesPerSecond = request.BandwidthLimitBytesPerSecond;
        source.SubHostQuotaBytes.AddRange(subPeers.Select(_ => 0UL));
        return source;
    }

    private async Task<Peer> StartSubAsync(
        KvmHostConnection host, int index, string thumbprint, Peer[] peers, CancellationToken cancellation)
    {
        WorkerSpec spec = NewSpec(WorkerRole.Sub, peers);
        spec.StoreLimitBytes = index < _plan.Request.SubHostLimitBytes.Count ? _plan.Request.SubHostLimitBytes[index] : 0;
        spec.ListenAddress = host.DataAddress;
        StartedWorker started = await StartAsync(host, spec, cancellation).ConfigureAwait(false);
        return Reachable(
            new Peer
            {
                Role = WorkerRole.Sub,
                Host = host.Name,
                Thumbprint = thumbprint,
                SubIndex = (uint)index,
                FreeBytes = _plan.SubRoomBytes[index],
            },
            host.DataAddress,
            started.DataPort);
    }

    private static Peer Reachable(Peer peer, string address, uint port)
    {
        Peer reachable = peer.Clone();
        reachable.Address = address;
        reachable.Port = port;
        return reachable;
    }

    private WorkerSpec NewSpec(WorkerRole role, IEnumerable<Peer> peers)
    {
        var spec = new WorkerSpec
        {
            SplitId = SplitId,
            Role = role,
            VmName = _plan.Vm.Name,
            StartedUnixMilliseconds = DateTimeOffset.UtcNow.ToUnixTimeMilliseconds(),
            TrackUnused = _plan.Request.TrackUnused,
            Tls = _plan.Request.Tls,
        };
        spec.RamBlocks.AddRange(_plan.Vm.RamBlocks.Select(b => new RamBlockSpec { Id = b.Id, SizeBytes = b.SizeBytes }));
        spec.Peers.AddRange(peers);
        return spec;
    }

    private async Task<string> PrepareAsync(KvmHostConnection host, WorkerRole role, CancellationToken cancellation)
    {
        // Noted before the call: one that was cut off may have done its work.
        lock (_preparedLock)
        {
            _prepared.Add((host, role));
        }

        try
        {
            return (await host.PrepareWorkerAsync(SplitId, role, cancellation).ConfigureAwait(false)).Thumbprint;
        }
        catch (FCtransException e)
        {
            throw NotStarted(host, e);
        }
    }

    private async Task<StartedWorker> StartAsync(KvmHostConnection host, WorkerSpec spec, CancellationToken cancellation)
    {
        try
        {
            return await host.StartWorkerAsync(spec, cancellation).ConfigureAwait(false);
        }
        catch (FCtransException e)
        {
            throw NotStarted(host, e);
        }
    }

    /// <summary>The agent's own words where it said any: that it was the host that answered is said already.</summary>
    private FCtransException NotStarted(KvmHostConnection host, FCtransException e) => Failure.MigrationNotStarted(
        _plan.Vm.Name, host.Name,
        e is { ErrorId: nameof(Failure.AgentRefused), InnerException: RpcException { Status.Detail.Length: > 0 } rpc }
            ? rpc.Status.Detail : e.Message, e);

    /// <summary>
    /// Takes back what was made, the last first. Returns what could not be, for the user to read; empty when nothing is left.
    /// </summary>
    private async Task<string> RemoveWorkersAsync(bool force)
    {
        (KvmHostConnection Host, WorkerRole Role)[] all;
        lock (_preparedLock)
        {
            all = [.. _prepared.OrderBy(p => p.Role)];
        }

        var left = new List<string>();
        foreach ((KvmHostConnection host, WorkerRole role) in all)
        {
            try
            {
                // Never by force at the source: what protects the VM there must be undone, not cut off.
                await host.RemoveWorkerAsync(SplitId, role, force && role != WorkerRole.Source, CancellationToken.None).ConfigureAwait(false);
            }
            catch (FCtransException e) when (e.Kind == FailureKind.NotFound)
            {
                // It never came to be.
            }
            catch (FCtransException e)
            {
                left.Add($"{host.Name} ({e.Message})");
            }
        }

        return left.Count == 0 ? "" : $" Left over on: {string.Join("; ", left)}";
    }
}
