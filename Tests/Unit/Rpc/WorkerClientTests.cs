using System.Diagnostics;
using System.Globalization;
using FCtrans.Agent.Rpc;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;
using Grpc.Core;
using Xunit;

namespace FCtrans.Unit.Tests.Rpc;

/// <summary>Whoever asks a worker must not be told that it is away while its supervisor starts it again.</summary>
public sealed class WorkerClientTests : IDisposable
{
    private readonly WorkerDirectory _directory = WorkerDirectory.Of(Guid.NewGuid().ToString("N"), WorkerRole.Sub);
    private readonly Process _supervisor;

    public WorkerClientTests()
    {
        _directory.Create();
        _directory.Mark(Markers.Ready, "1");
        // Known by its arguments, and ended by the end of its input.
        var start = new ProcessStartInfo("/bin/sh") { RedirectStandardInput = true };
        foreach (string argument in (string[])["-c", "read line; true", "supervisor", _directory.Path])
        {
            start.ArgumentList.Add(argument);
        }

        _supervisor = Process.Start(start)!;
        _directory.Mark(Markers.SupervisorPid, _supervisor.Id.ToString(CultureInfo.InvariantCulture));
        Assert.True(SpinWait.SpinUntil(() => _directory.RunningProcess(Markers.SupervisorPid) != 0, TimeSpan.FromSeconds(10)));
    }

    public void Dispose()
    {
        _supervisor.Kill();
        _supervisor.Dispose();
        _directory.Remove();
    }

    /// <summary>Off the test's own synchronization context: the server waits for its own tasks.</summary>
    [Fact]
    public Task A_call_waits_for_a_worker_that_is_being_started_again() => Task.Run(async () =>
    {
        using var channel = WorkerClient.Open(_directory);
        var call = new Worker.WorkerClient(channel).GetStatusAsync(new GetStatusRequest(), deadline: DateTime.UtcNow.AddSeconds(30));
        await Task.Delay(200);
        Assert.False(call.ResponseAsync.IsCompleted);
        using var server = WorkerServer.Start(_directory.SocketPath, new Role());
        Assert.Equal("the VM", (await call.ResponseAsync).VmName);
    });

    [Fact]
    public async Task A_call_to_a_worker_that_nobody_starts_again_fails_at_once()
    {
        _supervisor.Kill();
        await _supervisor.WaitForExitAsync();
        using var channel = WorkerClient.Open(_directory);
        // Without the wait for a restart, but not measured: it would wait beyond this deadline otherwise, and fail of that.
        var failure = await Assert.ThrowsAsync<RpcException>(
            () => new Worker.WorkerClient(channel).GetStatusAsync(new GetStatusRequest(), deadline: DateTime.UtcNow.AddSeconds(3)).ResponseAsync);
        Assert.Equal(StatusCode.Unavailable, failure.StatusCode);
    }

    private sealed class Role : IWorkerRole
    {
        public bool IsOver => false;

        public void Run(Action<int> ready, CancellationToken stop)
        {
        }

        public WorkerStatus Snapshot() => new() { VmName = "the VM" };

        public void Abort(string reason)
        {
        }

        public void Dispose()
        {
        }
    }
}
