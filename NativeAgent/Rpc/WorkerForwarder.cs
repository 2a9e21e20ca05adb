using FCtrans.Agent.Workers;
using FCtrans.Contracts;
using Grpc.Core;
using Grpc.Net.Client;

namespace FCtrans.Agent.Rpc;

/// <summary>
/// The workers' services over the agent's one connection: a call says in its metadata which worker it is for
/// (<see cref="WorkerAddress"/>), and goes on over that worker's socket. So a session needs one SSH channel a host, however many
/// workers it watches: sshd allows ten.
/// </summary>
internal sealed class WorkerForwarder : Worker.WorkerBase
{
    public override Task<WorkerStatus> GetStatus(GetStatusRequest request, ServerCallContext context) =>
        Forward(context, (worker, options) => worker.GetStatusAsync(request, options).ResponseAsync);

    public override Task<WorkerStatus> Abort(AbortRequest request, ServerCallContext context) =>
        Forward(context, (worker, options) => worker.AbortAsync(request, options).ResponseAsync);

    public override Task<WorkerStatus> SetPaging(PagingSettings request, ServerCallContext context) =>
        Forward(context, (worker, options) => worker.SetPagingAsync(request, options).ResponseAsync);

    public override Task<WorkerStatus> AddSubHost(AddSubHostRequest request, ServerCallContext context) =>
        Forward(context, (worker, options) => worker.AddSubHostAsync(request, options).ResponseAsync);

    public override Task<WorkerStatus> RemoveSubHost(RemoveSubHostRequest request, ServerCallContext context) =>
        Forward(context, (worker, options) => worker.RemoveSubHostAsync(request, options).ResponseAsync);

    public override Task Watch(WatchRequest request, IServerStreamWriter<WorkerStatus> responseStream, ServerCallContext context) =>
        Forward(context, async (worker, options) =>
        {
            using var call = worker.Watch(request, options);
            while (await call.ResponseStream.MoveNext(options.CancellationToken))
            {
                await responseStream.WriteAsync(call.ResponseStream.Current, options.CancellationToken);
            }

            return true;
        });

    private static async Task<T> Forward<T>(ServerCallContext context, Func<Worker.WorkerClient, CallOptions, Task<T>> call)
    {
        var directory = Addressed(context);
        using var channel = WorkerClient.Open(directory);
        DateTime? deadline = context.Deadline == DateTime.MaxValue ? null : context.Deadline;
        try
        {
            return await call(new Worker.WorkerClient(channel), new CallOptions(deadline: deadline, cancellationToken: context.CancellationToken));
        }
        catch (RpcException e) when (e.Status.DebugException is not null)
        {
            throw new RpcException(new Status(
                StatusCode.Unavailable, $"The {WorkerDirectory.RoleName(directory.Role)} worker of split {directory.SplitId} does not answer."));
        }
        catch (RpcException e)
        {
            // Without the trailers of the other connection: they are not ours to send.
            throw new RpcException(new Status(e.StatusCode, e.Status.Detail));
        }
    }

    private static WorkerDirectory Addressed(ServerCallContext context)
    {
        string[] parts = (context.RequestHeaders.GetValue(WorkerAddress.MetadataKey) ?? "").Split('/');
        if (parts is not [string splitId, string roleName] || !WorkerDirectory.IsSplitId(splitId)
            || !WorkerDirectory.TryParseRole(roleName, out var role))
        {
            throw new RpcException(new Status(StatusCode.InvalidArgument, $"The call does not say in '{WorkerAddress.MetadataKey}' which worker it is for."));
        }

        var directory = WorkerDirectory.Of(splitId, role);
        return File.Exists(directory.SocketPath) || WorkerClient.IsBeingStarted(directory)
            ? directory
            : throw new RpcException(new Status(StatusCode.NotFound, $"No {roleName} worker of split {splitId} runs on this host."));
    }
}
