using FCtrans.Contracts;
using Google.Protobuf;
using Grpc.Core;

namespace FCtrans.FakeAgent;

internal sealed class FakeHostAgent(FakeState state) : HostAgent.HostAgentBase
{
    public override Task<HostInfo> GetHost(GetHostRequest request, ServerCallContext context)
    {
        state.Called("GetHost");
        return Task.FromResult(state.Read<HostInfo>("host.json"));
    }

    public override Task<ListVmsReply> ListVms(ListVmsRequest request, ServerCallContext context)
    {
        state.Called("ListVms");
        return Task.FromResult(state.Read<ListVmsReply>("vms.json"));
    }

    public override async Task ListenForProbe(ListenForProbeRequest request, IServerStreamWriter<ListeningForProbe> stream, ServerCallContext context)
    {
        state.Called("ListenForProbe");
        await stream.WriteAsync(new ListeningForProbe { Port = 1 });
        await Task.Delay(Timeout.Infinite, context.CancellationToken).ContinueWith(static _ => { }, TaskScheduler.Default);
    }

    public override Task<ProbeReply> Probe(ProbeRequest request, ServerCallContext context) =>
        Task.FromResult(File.Exists(state.Path("probe.json")) ? state.Read<ProbeReply>("probe.json") : new ProbeReply { Reached = true, Microseconds = 50 });

    public override Task<CheckHostReply> CheckDestination(CheckDestinationRequest request, ServerCallContext context) =>
        Task.FromResult(File.Exists(state.Path("destination.json")) ? state.Read<CheckHostReply>("destination.json") : new CheckHostReply());

    public override Task<UnusedMemory> GetUnusedMemory(GetUnusedMemoryRequest request, ServerCallContext context)
    {
        state.Called("GetUnusedMemory");
        return Task.FromResult(new UnusedMemory { Vm = request.Vm, PageSizeBytes = 4096, TotalPages = 100, UsedPages = 40, Method = "buddy" });
    }

    public override Task<PreparedWorker> PrepareWorker(PrepareWorkerRequest request, ServerCallContext context)
    {
        state.Called("PrepareWorker", request.Role.ToString());
        File.WriteAllText(state.WorkerPath(request.SplitId, request.Role), "{}");
        return Task.FromResult(new PreparedWorker { Thumbprint = $"print-{request.Role}-{Path.GetFileName(state.Path(""))}" });
    }

    public override Task<StartedWorker> StartWorker(StartWorkerRequest request, ServerCallContext context)
    {
        state.Called("StartWorker", request.Spec.Role.ToString());
        File.WriteAllText(state.WorkerPath(request.Spec.SplitId, request.Spec.Role), JsonFormatter.Default.Format(request.Spec));
        return Task.FromResult(new StartedWorker { ProcessId = 1, DataPort = request.Spec.Role == WorkerRole.Source ? 0u : 4000u });
    }

    public override Task<ListWorkersReply> ListWorkers(ListWorkersRequest request, ServerCallContext context)
    {
        state.Called("ListWorkers");
        var reply = new ListWorkersReply();
        foreach (string path in Directory.Exists(state.Path("workers")) ? Directory.GetFiles(state.Path("workers")) : [])
        {
            var spec = JsonParser.Default.Parse<WorkerSpec>(File.ReadAllText(path));
            WorkerStatus status = state.Read<WorkerStatus>($"status-{spec.Role}.json");
            reply.Workers.Add(new WorkerSummary { Spec = spec, Status = status, Running = !File.Exists(state.Path("worker-died")) });
        }

        return Task.FromResult(reply);
    }

    public override Task<RemoveWorkerReply> RemoveWorker(RemoveWorkerRequest request, ServerCallContext context)
    {
        state.Called("RemoveWorker", request.Role.ToString());
        string path = state.WorkerPath(request.SplitId, request.Role);
        if (!File.Exists(path))
        {
            throw new RpcException(new Status(StatusCode.NotFound, "there is no such worker"));
        }

        File.Delete(path);
        return Task.FromResult(new RemoveWorkerReply());
    }
}
