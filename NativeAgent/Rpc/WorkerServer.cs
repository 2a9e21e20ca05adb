using FCtrans.Agent.Workers;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;

namespace FCtrans.Agent.Rpc;

/// <summary>A worker's gRPC server on its Unix socket. Lives as long as the worker's process.</summary>
internal sealed class WorkerServer : IDisposable
{
    private static readonly TimeSpan s_longestDrain = TimeSpan.FromSeconds(5);

    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly CancellationTokenSource _stopping = new();
    private readonly WebApplication _application;
    private int _calls;

    private WorkerServer(string socketPath, IWorkerRole role)
    {
        Role = role;
        _application = GrpcServer.Build(socketPath, services => services.AddSingleton(this));
        _application.MapGrpcService<WorkerService>();
    }

    public IWorkerRole Role { get; }

    /// <summary>Completes when the role's work has ended.</summary>
    public Task Ended => _ended.Task;

    /// <summary>Set when it has: for calls that would go on for ever.</summary>
    public CancellationToken Stopping => _stopping.Token;

    public static WorkerServer Start(string socketPath, IWorkerRole role)
    {
        var server = new WorkerServer(socketPath, role);
        // Left by a worker that was killed; nobody listens there any more. Not sooner: where there is a socket, there is a worker to wait for.
        File.Delete(socketPath);
        server._application.StartAsync().GetAwaiter().GetResult();
        return server;
    }

    /// <summary>Counts a call that the end of the work must not cut off.</summary>
    public IDisposable EnterCall()
    {
        Interlocked.Increment(ref _calls);
        return new Call(this);
    }

    /// <summary>Says that the work has ended and waits until those who watch have had the last status.</summary>
    public void Drain()
    {
        _ended.TrySetResult();
        _stopping.Cancel();
        SpinWait.SpinUntil(() => Volatile.Read(ref _calls) == 0, s_longestDrain);
    }

    public void Dispose()
    {
        using var soon = new CancellationTokenSource(TimeSpan.FromSeconds(1));
        _application.StopAsync(soon.Token).GetAwaiter().GetResult();
        _application.DisposeAsync().AsTask().GetAwaiter().GetResult();
        _stopping.Dispose();
    }

    private sealed class Call(WorkerServer server) : IDisposable
    {
        public void Dispose() => Interlocked.Decrement(ref server._calls);
    }
}
