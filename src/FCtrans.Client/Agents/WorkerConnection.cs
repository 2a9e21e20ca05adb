using System.Runtime.CompilerServices;
using FCtrans.Contracts;
using Grpc.Core;

namespace FCtrans.Client;

/// <summary>One worker on a host, spoken to over the host's own connection: its agent passes the calls on.</summary>
public sealed class WorkerConnection
{
    private static readonly TimeSpan s_callLimit = TimeSpan.FromSeconds(30);

    /// <summary>The VM must be given back by then: undoing the protection of a large VM takes a while.</summary>
    private static readonly TimeSpan s_abortLimit = TimeSpan.FromSeconds(120);

    private readonly SshRpcChannel _channel;
    private readonly Worker.WorkerClient _worker;
    private readonly string _vm;
    private readonly Metadata _address;

    internal WorkerConnection(SshRpcChannel channel, string splitId, WorkerRole role, string vm)
    {
        _channel = channel;
        _vm = vm;
        _address = new Metadata { { WorkerAddress.MetadataKey, WorkerAddress.Of(splitId, role) } };
        _worker = new Worker.WorkerClient(channel.Invoker);
    }

    /// <summary>The worker's state now.</summary>
    public Task<WorkerStatus> GetStatusAsync(CancellationToken cancellation) => _channel.CallAsync(
        "a worker's state", o => _worker.GetStatusAsync(new GetStatusRequest(), o.WithHeaders(_address)), s_callLimit, cancellation);

    /// <summary>States as they change, until the work has ended. Ends early with an exception when the connection breaks.</summary>
    public async IAsyncEnumerable<WorkerStatus> WatchAsync(
        TimeSpan interval, [EnumeratorCancellation] CancellationToken cancellation)
    {
        using AsyncServerStreamingCall<WorkerStatus> call = _worker.Watch(
            new WatchRequest { IntervalMilliseconds = (int)interval.TotalMilliseconds }, _address, cancellationToken: cancellation);
        while (true)
        {
            try
            {
                if (!await call.ResponseStream.MoveNext(cancellation).ConfigureAwait(false))
                {
                    yield break;
                }
            }
            catch (RpcException e) when (e.StatusCode == StatusCode.Cancelled && cancellation.IsCancellationRequested)
            {
                throw new OperationCanceledException(cancellation);
            }
            catch (RpcException e)
            {
                throw await _channel.TranslateAsync(e, "watching a worker", s_callLimit).ConfigureAwait(false);
            }

            yield return call.ResponseStream.Current;
        }
    }

    /// <summary>Gives the migration up; returns when the VM runs at the source again.</summary>
    /// <exception cref="FCtransException">MigrationCommitted: too late.</exception>
    public Task<WorkerStatus> AbortAsync(string reason, CancellationToken cancellation) => _channel.CallAsync(
        "stopping a migration", o => _worker.AbortAsync(new AbortRequest { Reason = reason }, o.WithHeaders(_address)), s_abortLimit, cancellation,
        e => e.StatusCode == StatusCode.FailedPrecondition ? Failure.MigrationCommitted(_vm, e) : null);

    /// <summary>Main worker only: changes what is set in <paramref name="settings"/>; the state after it.</summary>
    /// <exception cref="FCtransException">PagingNotChanged: the VM is still being received, or the host has not the memory.</exception>
    public Task<WorkerStatus> SetPagingAsync(PagingSettings settings, CancellationToken cancellation) => _channel.CallAsync(
        "changing a VM's paging", o => _worker.SetPagingAsync(settings, o.WithHeaders(_address)), s_callLimit, cancellation,
        e => e.StatusCode == StatusCode.FailedPrecondition ? Failure.PagingNotChanged(_vm, e) : null);

    /// <summary>Main worker only: <paramref name="sub"/>, whose worker runs, becomes a sub-host; the state after it.</summary>
    /// <exception cref="FCtransException">SubHostNotAdded: it can't be reached from the main host, or may not become one.</exception>
    public Task<WorkerStatus> AddSubHostAsync(Peer sub, CancellationToken cancellation) => _channel.CallAsync(
        "adding a sub-host",
        o => _worker.AddSubHostAsync(
            new AddSubHostRequest
            {
                Host = sub.Host, Address = sub.Address, Port = sub.Port, Thumbprint = sub.Thumbprint, FreeBytes = sub.FreeBytes,
            },
            o.WithHeaders(_address)),
        s_abortLimit, cancellation,
        e => e.StatusCode == StatusCode.FailedPrecondition ? Failure.SubHostNotAdded(sub.Host, _vm, e.Status.Detail, "", e) : null);

    /// <summary>Main worker only: sub-host <paramref name="host"/> is to leave, or is given up. Returns when that has begun.</summary>
    /// <exception cref="FCtransException">SubHostNotRemoved: there is none of that name, or no room for its pages elsewhere.</exception>
    public Task<WorkerStatus> RemoveSubHostAsync(string host, bool lost, CancellationToken cancellation) => _channel.CallAsync(
        "removing a sub-host", o => _worker.RemoveSubHostAsync(new RemoveSubHostRequest { Host = host, Lost = lost }, o.WithHeaders(_address)),
        s_abortLimit, cancellation,
        e => e.StatusCode == StatusCode.FailedPrecondition ? Failure.SubHostNotRemoved(host, _vm, e) : null);
}
