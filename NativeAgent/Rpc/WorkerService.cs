using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
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

    public override Task<WorkerStatus> AddSubHost(AddSubHostRequest request, ServerCallContext context) =>
        Change(() => server.Role.AddSubHost(request));

    public override Task<WorkerStatus> RemoveSubHost(RemoveSubHostRequest request, ServerCallContext context) =>
        Change(() => server.Role.RemoveSubHost(request.Host, request.Lost));

    public override Task<UnusedMemory> GetUnusedMemory(GetUnusedMemoryRequest request, ServerCallContext context) =>
        OfMemory(context, (memory, _) => MemoryCalls.Look(memory, request.Vm));

    public override Task WatchUnusedMemory(
        WatchUnusedMemoryRequest request, IServerStreamWriter<UnusedMemory> responseStream, ServerCallContext context) =>
        OfMemory(context, (memory, stop) => MemoryCalls.Watch(memory, request, responseStream.WriteAndWait, stop));

    public override Task GetMemoryMap(
        GetMemoryMapRequest request, IServerStreamWriter<MemoryMapPart> responseStream, ServerCallContext context) =>
        OfMemory(context, (memory, stop) => MemoryCalls.Map(memory, request, responseStream.WriteAndWait, stop));

    public override Task OptimizeMemory(
        OptimizeMemoryRequest request, IServerStreamWriter<OptimizedMemory> responseStream, ServerCallContext context) =>
        OfMemory(context, (memory, stop) => MemoryCalls.Optimize(memory, request, responseStream.WriteAndWait, stop));

    private Task<bool> OfMemory(ServerCallContext context, Action<IVmMemory, CancellationToken> work) => OfMemory(context, (memory, stop) =>
    {
        work(memory, stop);
        return true;
    });

    /// <summary>Ends with the caller, and with the worker.</summary>
    private async Task<T> OfMemory<T>(ServerCallContext context, Func<IVmMemory, CancellationToken, T> work)
    {
        using var call = server.EnterCall();
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(context.CancellationToken, server.Stopping);
        try
        {
            return await Task.Run(() => work(server.Role.Memory, stop.Token));
        }
        catch (ArgumentException e)
        {
            throw new RpcException(new Status(StatusCode.InvalidArgument, e.Message));
        }
        catch (Exception e) when (e is InvalidOperationException or IOException or MonitorException or GuestRamException or KernelException)
        {
            throw new RpcException(new Status(StatusCode.FailedPrecondition, e.Message));
        }
    }

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
