using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Injection;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;
using Grpc.Core;

namespace FCtrans.Agent.Rpc;

/// <summary>The RPC face of a host (<c>host_agent.proto</c>). Keeps nothing between calls.</summary>
internal sealed class HostAgentService : HostAgent.HostAgentBase
{
    public override Task<HostInfo> GetHost(GetHostRequest request, ServerCallContext context) =>
        Off(HostInspector.Inspect);

    public override Task<CheckHostReply> CheckHost(CheckHostRequest request, ServerCallContext context) => Off(() =>
    {
        var reply = new CheckHostReply();
        reply.Checks.AddRange(HostChecks.Run(request.DataAddress));
        return reply;
    });

    public override Task ListenForProbe(
        ListenForProbeRequest request, IServerStreamWriter<ListeningForProbe> responseStream, ServerCallContext context) => ReachabilityProbe.ListenAsync(
        request, port => responseStream.WriteAsync(new ListeningForProbe { Port = (uint)port }, context.CancellationToken), context.CancellationToken);

    public override Task<ProbeReply> Probe(ProbeRequest request, ServerCallContext context) =>
        ReachabilityProbe.ConnectAsync(request, context.CancellationToken);

    public override Task<ListVmsReply> ListVms(ListVmsRequest request, ServerCallContext context) => Off(() =>
    {
        var reply = new ListVmsReply();
        reply.Vms.AddRange(QemuProcesses.Find().Select(VmInspector.Describe));
        return reply;
    });

    public override Task<CheckHostReply> CheckDestination(CheckDestinationRequest request, ServerCallContext context) => Off(() =>
    {
        var reply = new CheckHostReply();
        reply.Checks.AddRange(DestinationChecks.Run(request));
        return reply;
    });

    public override Task<UnusedMemory> GetUnusedMemory(GetUnusedMemoryRequest request, ServerCallContext context) => OfMemory(
        request.Vm,
        memory => MemoryCalls.Look(memory, request.Vm),
        async worker => await worker.GetUnusedMemoryAsync(request, Options(context)));

    public override Task WatchUnusedMemory(
        WatchUnusedMemoryRequest request, IServerStreamWriter<UnusedMemory> responseStream, ServerCallContext context) => OfMemory(
        request.Vm,
        memory => Done(() => MemoryCalls.Watch(memory, request, responseStream.WriteAndWait, context.CancellationToken)),
        worker => PassOn(worker.WatchUnusedMemory(request, Options(context)), responseStream));

    public override Task GetMemoryMap(
        GetMemoryMapRequest request, IServerStreamWriter<MemoryMapPart> responseStream, ServerCallContext context) => OfMemory(
        request.Vm,
        memory => Done(() => MemoryCalls.Map(memory, request, responseStream.WriteAndWait, context.CancellationToken)),
        worker => PassOn(worker.GetMemoryMap(request, Options(context)), responseStream));

    public override Task OptimizeMemory(
        OptimizeMemoryRequest request, IServerStreamWriter<OptimizedMemory> responseStream, ServerCallContext context) => OfMemory(
        request.Vm,
        memory => Done(() => MemoryCalls.Optimize(memory, request, responseStream.WriteAndWait, context.CancellationToken)),
        worker => PassOn(worker.OptimizeMemory(request, Options(context)), responseStream));

    public override Task<LibvirtDomainDescription> GetLibvirtDomain(GetLibvirtDomainRequest request, ServerCallContext context) =>
        Off(() => VmInspector.DescribeDomain(FindVm(request.Vm)));

    public override Task<PreparedWorker> PrepareWorker(PrepareWorkerRequest request, ServerCallContext context) =>
        Off(() => new PreparedWorker { Thumbprint = WorkerManager.Prepare(request.SplitId, request.Role) });

    public override Task<StartedWorker> StartWorker(StartWorkerRequest request, ServerCallContext context) =>
        Off(() => WorkerManager.Start(request.Spec ?? new WorkerSpec(), context.CancellationToken));

    public override Task<ListWorkersReply> ListWorkers(ListWorkersRequest request, ServerCallContext context) => Off(() =>
    {
        var reply = new ListWorkersReply();
        reply.Workers.AddRange(WorkerManager.List());
        return reply;
    });

    public override Task<RemoveWorkerReply> RemoveWorker(RemoveWorkerRequest request, ServerCallContext context) => Off(() =>
    {
        WorkerManager.Remove(request.SplitId, request.Role, request.Force);
        return new RemoveWorkerReply();
    });

    public override Task<UpgradeWorkersReply> UpgradeWorkers(UpgradeWorkersRequest request, ServerCallContext context) => Off(() =>
    {
        var reply = new UpgradeWorkersReply();
        foreach (var directory in WorkerUpgrade.Outdated())
        {
            WorkerUpgrade.Upgrade(directory, context.CancellationToken);
            reply.Upgraded.Add(directory.ReadSpec());
        }

        return reply;
    });

    private static QemuProcess FindVm(string name)
    {
        var vms = QemuProcesses.Find().Where(vm => vm.Name == name).ToList();
        return vms.Count switch
        {
            1 => vms[0],
            0 => throw new RpcException(new Status(StatusCode.NotFound, $"No VM named '{name}' runs on this host.")),
            _ => throw new RpcException(new Status(
                StatusCode.FailedPrecondition, $"{vms.Count} VMs named '{name}' run on this host. Give each a name of its own (-name).")),
        };
    }

    private static CallOptions Options(ServerCallContext context) => new(cancellationToken: context.CancellationToken);

    private static bool Done(Action work)
    {
        work();
        return true;
    }

    /// <summary>A call about a VM's memory: done here, or by the worker that pages the VM on this host.</summary>
    private static async Task<T> OfMemory<T>(string name, Func<IVmMemory, T> here, Func<Worker.WorkerClient, Task<T>> there)
    {
        var vm = await Task.Run(() => FindVm(name));
        if (VmInspector.WorkerOf(vm) is not { Role: WorkerRole.Main } directory)
        {
            return await Off(() =>
            {
                using var memory = VmInspector.OpenMemory(vm);
                return here(memory);
            });
        }

        using var channel = WorkerClient.Open(directory);
        try
        {
            return await there(new Worker.WorkerClient(channel));
        }
        catch (RpcException e) when (e.Status.DebugException is not null && e.StatusCode != StatusCode.Cancelled)
        {
            throw new RpcException(new Status(
                StatusCode.FailedPrecondition, "The worker that pages the VM does not answer. It may be starting again: try once more."));
        }
        catch (RpcException e)
        {
            // Without the trailers of the other connection: they are not ours to send.
            throw new RpcException(new Status(e.StatusCode, e.Status.Detail));
        }
    }

    private static async Task<bool> PassOn<T>(AsyncServerStreamingCall<T> call, IServerStreamWriter<T> to)
    {
        using (call)
        {
            while (await call.ResponseStream.MoveNext(CancellationToken.None))
            {
                await to.WriteAsync(call.ResponseStream.Current);
            }
        }

        return true;
    }

    /// <summary>Runs blocking work off the server's threads; what goes wrong reaches the caller with its reason.</summary>
    private static async Task<T> Off<T>(Func<T> work)
    {
        try
        {
            return await Task.Run(work);
        }
        catch (ArgumentException e)
        {
            throw new RpcException(new Status(StatusCode.InvalidArgument, e.Message));
        }
        catch (Exception e) when (e is InvalidOperationException or IOException or MonitorException or UnauthorizedAccessException or GuestRamException or KernelException or InjectionException)
        {
            throw new RpcException(new Status(StatusCode.FailedPrecondition, e.Message));
        }
    }
}
