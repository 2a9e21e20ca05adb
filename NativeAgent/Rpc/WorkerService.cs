using FCtrans.Contracts;
using Grpc.Core;

namespace FCtrans.Agent.Rpc;

/// <summary>The RPC face of one worker (<c>worker.proto</c>).</summary>
internal sealed class WorkerService(WorkerServer server) : Worker.WorkerBase
{
    private const int ShortestIntervalMilliseconds = 20;
    private const int LongestIntervalMilliseconds = 60_000;

    public override Task<WorkerStatus> GetStatus(GetStatusRequest request, ServerCallContext context) =>
        Task.FromResult(server.Role.Snapshot());

    public override async Task Watch(WatchRequest request, IServerStreamWriter<WorkerStatus> responseStream, ServerCallContext context)
    {
        int interval = Math.Clamp(request.IntervalMilliseconds, ShortestIntervalMilliseconds, LongestIntervalMilliseconds);
        using var call = server.EnterCall();
        while (!context.CancellationToken.IsCancellationRequested)
        {
            // Whether it has ended is asked before the figures are taken, so that the last status sent is the final one.
            bool ended = server.Ended.IsCompleted;
            await responseStream.WriteAsync(server.Role.Snapshot(), context.CancellationToken);
            if (ended)
            {
                return;
            }

            await Task.WhenAny(server.Ended, Task.Delay(interval, context.CancellationToken));
        }
    }

    public override Task<WorkerStatus> Abort(AbortRequest request, ServerCallContext context) =>
        Change(() => server.Role.Abort(request.Reason));

    public override Task<WorkerStatus> SetPaging(PagingSettings request, ServerCallContext context) =>
        Change(() => server.Role.SetPaging(request));

    public override Task<WorkerStatus> RemoveSubHost(RemoveSubHostRequest request, ServerCallContext context) =>
        Change(() => server.Role.RemoveSubHost(request.Host, request.Lost));

    private async Task<WorkerStatus> Change(Action change)
    {
        using var call = server.EnterCall();
        try
        {
            await Task.Run(change);
        }
        catch (InvalidOperationException e)
        {
            throw new RpcException(new Status(StatusCode.FailedPrecondition, e.Message));
        }

        return server.Role.Snapshot();
    }
}
