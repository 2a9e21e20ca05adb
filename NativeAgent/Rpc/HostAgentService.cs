using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;
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

    public override Task<ListVmsReply> ListVms(ListVmsRequest request, ServerCallContext context) => Off(() =>
    {
        var reply = new ListVmsReply();
        reply.Vms.AddRange(QemuProcesses.Find().Select(VmInspector.Describe));
        return reply;
    });

    public override Task<UnusedMemory> GetUnusedMemory(GetUnusedMemoryRequest request, ServerCallContext context) =>
        Off(() => VmInspector.FindUnusedMemory(FindVm(request.Vm)));

    public override Task OptimizeMemory(
        OptimizeMemoryRequest request, IServerStreamWriter<OptimizedMemory> responseStream, ServerCallContext context) => Off(() =>
    {
        // Blocking on purpose: a caller that reads slowly slows the turns down instead of filling memory.
        VmInspector.OptimizeMemory(
            FindVm(request.Vm), request, turn => responseStream.WriteAsync(turn).GetAwaiter().GetResult(), context.CancellationToken);
        return true;
    });

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
        catch (Exception e) when (e is InvalidOperationException or IOException or MonitorException or UnauthorizedAccessException)
        {
            throw new RpcException(new Status(StatusCode.FailedPrecondition, e.Message));
        }
    }
}
