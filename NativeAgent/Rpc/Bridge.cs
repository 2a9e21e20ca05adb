using System.Net.Sockets;

namespace FCtrans.Agent.Rpc;

/// <summary>
/// Joins this process's stdin and stdout with a Unix socket: the way a gRPC connection comes in through an SSH channel.
/// </summary>
internal static class Bridge
{
    /// <summary>Returns when either side has closed.</summary>
    /// <param name="connected">Called once the socket is connected.</param>
    /// <exception cref="SocketException">Nobody listens at <paramref name="socketPath"/>.</exception>
    public static async Task RunAsync(string socketPath, Action? connected = null)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(socketPath));
        connected?.Invoke();
        await using var stream = new NetworkStream(socket, ownsSocket: false);
        await using var input = Console.OpenStandardInput();
        await using var output = Console.OpenStandardOutput();
        await Task.WhenAny(CopyAsync(input, stream), CopyAsync(stream, output));
    }

    private static async Task CopyAsync(Stream from, Stream to)
    {
        // Leaves the caller's thread at once: reading standard input blocks.
        await Task.Yield();
        byte[] buffer = new byte[64 * 1024];
        try
        {
            for (int read; (read = await from.ReadAsync(buffer)) > 0;)
            {
                await to.WriteAsync(buffer.AsMemory(0, read));
                await to.FlushAsync();
            }
        }
        catch (IOException)
        {
            // The other end has gone: the same as the end of the stream.
        }
    }
}
