using FCtrans.Contracts;
using Google.Protobuf;
using Grpc.Core;

namespace FCtrans.FakeAgent;

/// <summary>Plays the lines of the file watch; each is played once over all connections. A line "cut" ends the process.</summary>
internal sealed class FakeWorker(FakeState state) : Worker.WorkerBase
{
    public override Task<WorkerStatus> GetStatus(GetStatusRequest request, ServerCallContext context)
    {
        state.Called("GetStatus");
        string role = Address(context).Split('/')[^1];
        return Task.FromResult(state.Read<WorkerStatus>($"status-{char.ToUpperInvariant(role[0])}{role[1..]}.json"));
    }

    private static string Address(ServerCallContext context) => context.RequestHeaders.GetValue(WorkerAddress.MetadataKey) ?? "";

    public override async Task Watch(WatchRequest request, IServerStreamWriter<WorkerStatus> stream, ServerCallContext context)
    {
        state.Called("Watch", Address(context));
        while (true)
        {
            string[] lines = File.Exists(state.Path("watch")) ? await File.ReadAllLinesAsync(state.Path("watch")) : [];
            if (lines.Length == 0)
            {
                // Nothing more happens until the caller goes or the test says on.
                await Task.Delay(20, context.CancellationToken);
                continue;
            }

            await File.WriteAllLinesAsync(state.Path("watch"), lines.AsSpan(1).ToArray());
            if (lines[0] == "cut")
            {
                Environment.Exit(7);
            }

            var status = JsonParser.Default.Parse<WorkerStatus>(lines[0]);
            await stream.WriteAsync(status);
            if (status.Migration.State.HasEnded())
            {
                return;
            }
        }
    }

    public override Task<WorkerStatus> AddSubHost(AddSubHostRequest request, ServerCallContext context)
    {
        state.Called("AddSubHost");
        var status = state.Read<WorkerStatus>("status-Main.json");
        status.Paging.SubHosts.Add(request.Host);
        status.Paging.SubHostStates.Add("serving");
        File.WriteAllText(state.Path("status-Main.json"), JsonFormatter.Default.Format(status));
        return Task.FromResult(status);
    }

    public override async Task<WorkerStatus> Abort(AbortRequest request, ServerCallContext context)
    {
        state.Called("Abort");
        const string Aborted = """{"migration":{"state":"MIGRATION_STATE_ABORTED"}}""";
        await File.WriteAllLinesAsync(state.Path("watch"), [Aborted]);
        await File.WriteAllTextAsync(state.Path("status-Source.json"), Aborted);
        return JsonParser.Default.Parse<WorkerStatus>(Aborted);
    }
}
