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

    /// <summary>A channel to the worker; nothing is sent before its first call.</summary>
    public static GrpcChannel Open(WorkerDirectory directory)
    {
        var handler = new SocketsHttpHandler
        {
            ConnectCallback = async (_, cancel) =>
            {
                var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                try
                {
                    await socket.ConnectAsync(new UnixDomainSocketEndPoint(directory.SocketPath), cancel);
                    return new NetworkStream(socket, ownsSocket: true);
                }
                catch
                {
                    socket.Dispose();
                    throw;
                }
            },
        };
        return GrpcChannel.ForAddress("http://worker", new GrpcChannelOptions { HttpHandler = handler, DisposeHttpClient = true });
    }

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
}
