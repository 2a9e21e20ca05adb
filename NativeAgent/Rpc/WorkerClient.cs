using System.Net.Sockets;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;
using Grpc.Core;
using Grpc.Net.Client;

namespace FCtrans.Agent.Rpc;

/// <summary>Asks a worker of this host, over its socket.</summary>
internal static class WorkerClient
{
    // A worker answers from memory; one that does not within this has been killed or is starting.
    private static readonly TimeSpan s_timeout = TimeSpan.FromSeconds(2);

    // Longer than a worker that was started again leaves callers for its guest.
    private static readonly TimeSpan s_restart = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan s_restartPoll = TimeSpan.FromMilliseconds(20);

    /// <summary>
    /// A channel to the worker; nothing is sent before its first call, which waits a while for a worker that is about to be there again: one that was
    /// killed is nothing that its callers need to know of.
    /// </summary>
    public static GrpcChannel Open(WorkerDirectory directory)
    {
        var handler = new SocketsHttpHandler
        {
            ConnectCallback = async (_, cancel) =>
            {
                long end = Environment.TickCount64 + (long)s_restart.TotalMilliseconds;
                while (true)
                {
                    try
                    {
                        return await ConnectAsync(directory.SocketPath, cancel);
                    }
                    catch (SocketException) when (IsBeingStarted(directory) && Environment.TickCount64 < end)
                    {
                        await Task.Delay(s_restartPoll, cancel);
                    }
                }
            },
        };
        return GrpcChannel.ForAddress("http://worker", new GrpcChannelOptions { HttpHandler = handler, DisposeHttpClient = true });
    }

    /// <summary>It has not ended, and somebody starts it again whenever it does not run.</summary>
    public static bool IsBeingStarted(WorkerDirectory directory) =>
        directory.Has(Markers.Ready) && !directory.Has(Markers.Ended) && directory.RunningProcess(Markers.SupervisorPid) > 0;

    /// <returns>Its status as of now; null when no worker answers.</returns>
    public static WorkerStatus? TryGetStatus(WorkerDirectory directory)
    {
        if (directory.Has(Markers.Ended) || !File.Exists(directory.SocketPath))
        {
            return null;
        }

        using var channel = Open(directory);
        try
        {
            return new Worker.WorkerClient(channel).GetStatus(new GetStatusRequest(), deadline: DateTime.UtcNow + s_timeout);
        }
        catch (RpcException)
        {
            return null;
        }
    }

    private static async Task<Stream> ConnectAsync(string path, CancellationToken cancel)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancel);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
