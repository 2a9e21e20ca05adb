using System.Globalization;
using FCtrans.Contracts;
using Grpc.Core;

namespace FCtrans.Client;

/// <summary>
/// Makes a host a sub-host of a VM that is split already: prepares and starts a worker there as a migration does, and tells the main host
/// of it. What fails leaves nothing on the new host. When it can't be known whether the main host has taken it (the connection broke just
/// then), the main host is asked until it answers: only a host that it does not name is cleared.
/// </summary>
public sealed class SubHostAddition
{
    /// <summary>Longer than the main host's worker tries to reach the new one: a call that was cut off has had its effect by then, or has none.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(500);

    private readonly KvmHostConnection _main;
    private readonly KvmHostConnection _sub;
    private readonly WorkerSpec _split;
    private readonly ulong _limitBytes;
    private readonly WorkerConnection _worker;

    /// <param name="main">The VM's main host.</param>
    /// <param name="split">Its worker's specification.</param>
    /// <param name="sub">Who is to become a sub-host.</param>
    /// <param name="limitBytes">The most that it may hold; 0: what it has free.</param>
    public SubHostAddition(KvmHostConnection main, WorkerSpec split, KvmHostConnection sub, ulong limitBytes)
    {
        _main = main;
        _split = split;
        _sub = sub;
        _limitBytes = limitBytes;
        _worker = main.ConnectWorker(split.SplitId, WorkerRole.Main, split.VmName);
    }

    /// <summary>How long the main host is asked what came of a call that was cut off; for tests.</summary>
    public TimeSpan Patience { get; init; } = s_patience;

    /// <summary>Does it; the main host's state after it, and who the new sub-host is.</summary>
    /// <exception cref="FCtransException">HostNamedTwice, DataAddressUnknown, HostCapabilityMissing, SubHostsTooSmall, SubHostNotAdded.</exception>
    public async Task<(WorkerStatus Status, Peer Sub)> RunAsync(CancellationToken cancellation)
    {
        WorkerStatus status = await _worker.GetStatusAsync(cancellation).ConfigureAwait(false);
        Check(status);
        HostInfo info = await _sub.GetHostAsync(cancellation).ConfigureAwait(false);
        SplitMigrationPlan.Require(_sub, info, "sub-host", SplitMigrationPlan.SubNeeds);
        ulong room = SplitMigrationPlan.Room(info);
        room = _limitBytes > 0 ? Math.Min(_limitBytes, room) : room;
        if (room < 1 << 20)
        {
            throw Failure.SubHostsTooSmall(_sub.Name, 1 << 20, room);
        }

        await ClearFormerAsync(status).ConfigureAwait(false);
        PreparedWorker prepared;
        try
        {
            prepared = await _sub.PrepareWorkerAsync(_split.SplitId, WorkerRole.Sub, cancellation).ConfigureAwait(false);
        }
        catch (FCtransException e)
        {
            // Never taken back: one that is there already may serve the VM.
            throw NotAdded(e, "");
        }

        try
        {
            Peer peer = await StartAsync(prepared.Thumbprint, status.Thumbprint, room, cancellation).ConfigureAwait(false);
            cancellation.ThrowIfCancellationRequested();
            return (await JoinAsync(peer).ConfigureAwait(false), peer);
        }
        catch (Exception e) when (e is not FCtransException { ErrorId: nameof(Failure.SubHostOutcomeUnknown) })
        {
            string left = await RemoveAsync().ConfigureAwait(false);
            throw e is OperationCanceledException ? e : NotAdded(e, left);
        }
    }

    private void Check(WorkerStatus status)
    {
        bool IsServing(string host) => StatesOf(status, host).Any(s => s is "serving" or "leaving");
        if (SplitMigrationPlan.SameHost(_main, _sub)
            || _split.Peers.Any(p => p.Role == WorkerRole.Sub && p.Address == _sub.DataAddress && p.Host != _sub.Name && IsServing(p.Host)))
        {
            throw Failure.HostNamedTwice(_sub.Name);
        }

        if (_sub.DataAddress.Length == 0)
        {
            throw Failure.DataAddressUnknown(_sub.Name);
        }

        if (IsServing(_sub.Name))
        {
            throw Failure.SubHostNotAdded(_sub.Name, _split.VmName, "it is a sub-host of this VM already", "");
        }

        if (status.Thumbprint.Length == 0)
        {
            throw Failure.SubHostNotAdded(
                _sub.Name, _split.VmName,
                "the VM's worker on the main host is of an older agent. Connect-KvmHost -UpgradeWorker brings it under this one", "");
        }
    }

    private static IEnumerable<string> StatesOf(WorkerStatus status, string host) => status.Paging.SubHosts
        .Zip(status.Paging.SubHostStates).Where(s => string.Equals(s.First, host, StringComparison.OrdinalIgnoreCase)).Select(s => s.Second);

    /// <summary>A host that was a sub-host of this VM before, and has left or was given up, may still have what nobody asks for any more.</summary>
    private async Task ClearFormerAsync(WorkerStatus status)
    {
        if (StatesOf(status, _sub.Name).Any())
        {
            await RemoveAsync().ConfigureAwait(false);
        }
    }

    private async Task<Peer> StartAsync(string thumbprint, string mainThumbprint, ulong room, CancellationToken cancellation)
    {
        var spec = new WorkerSpec
        {
            SplitId = _split.SplitId,
            Role = WorkerRole.Sub,
            VmName = _split.VmName,
            StartedUnixMilliseconds = DateTimeOffset.UtcNow.ToUnixTimeMilliseconds(),
            TrackUnused = _split.TrackUnused,
            Tls = _split.Tls,
            StoreLimitBytes = _limitBytes,
            ListenAddress = _sub.DataAddress,
        };
        spec.RamBlocks.AddRange(_split.RamBlocks);
        spec.Peers.Add(new Peer { Role = WorkerRole.Main, Host = _main.Name, Thumbprint = mainThumbprint });
        StartedWorker started = await _sub.StartWorkerAsync(spec, cancellation).ConfigureAwait(false);
        return new Peer
        {
            Role = WorkerRole.Sub,
            Host = _sub.Name,
            Address = _sub.DataAddress,
            Port = started.DataPort,
            Thumbprint = thumbprint,
            FreeBytes = room,
        };
    }

    /// <summary>Not cancelled half-way: whether the main host has it must not be a guess.</summary>
    private async Task<WorkerStatus> JoinAsync(Peer peer)
    {
        try
        {
            return await _worker.AddSubHostAsync(peer, CancellationToken.None).ConfigureAwait(false);
        }
        catch (FCtransException e) when (e.ErrorId != nameof(Failure.SubHostNotAdded))
        {
            // The connection broke, or the worker was killed in the middle.
            return await FindOutAsync(e).ConfigureAwait(false);
        }
    }

    private async Task<WorkerStatus> FindOutAsync(FCtransException cause)
    {
        long end = Environment.TickCount64 + (long)Patience.TotalMilliseconds;
        bool answered = false;
        while (Environment.TickCount64 < end)
        {
            try
            {
                WorkerStatus status = await _worker.GetStatusAsync(CancellationToken.None).ConfigureAwait(false);
                answered = true;
                if (StatesOf(status, _sub.Name).Contains("serving"))
                {
                    return status;
                }
            }
            catch (FCtransException)
            {
                // Not reachable now, or just being started again.
                answered = false;
            }

            await Task.Delay(s_pause).ConfigureAwait(false);
        }

        throw answered ? cause : Failure.SubHostOutcomeUnknown(_sub.Name, _split.VmName, cause);
    }

    /// <summary>Takes the new host's worker back. What could not be, for the user to read; empty when nothing is left.</summary>
    private async Task<string> RemoveAsync()
    {
        try
        {
            await _sub.RemoveWorkerAsync(_split.SplitId, WorkerRole.Sub, force: true, CancellationToken.None).ConfigureAwait(false);
            return "";
        }
        catch (FCtransException e) when (e.Kind == FailureKind.NotFound)
        {
            return "";
        }
        catch (FCtransException e)
        {
            return string.Create(CultureInfo.InvariantCulture, $" Left over on {_sub.Name}: {e.Message}");
        }
    }

    /// <summary>In the host's own words where it said any.</summary>
    private FCtransException NotAdded(Exception e, string left) =>
        e is FCtransException { ErrorId: nameof(Failure.SubHostNotAdded) } said && left.Length == 0 ? said
        : Failure.SubHostNotAdded(
            _sub.Name, _split.VmName, e.InnerException is RpcException { Status.Detail.Length: > 0 } rpc ? rpc.Status.Detail : e.Message, left, e);
}
