using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using FCtrans.Contracts;
using Grpc.Core;

namespace FCtrans.Agent.Rpc;

/// <summary>
/// Whether one host reaches a port on another. One end opens a port and gives back what it is sent if that is the token of this
/// probe, so that a wrong host at the address is not taken for the right one; the other connects and times it.
/// </summary>
internal static class ReachabilityProbe
{
    private const int LeastToken = 16;
    private const int MostToken = 64;
    private static readonly TimeSpan s_longestListening = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(3);

    /// <summary>Listens until the caller goes away, a minute at most.</summary>
    /// <param name="opened">Gets the port.</param>
    /// <exception cref="RpcException">INVALID_ARGUMENT; FAILED_PRECONDITION: no port can be opened there.</exception>
    public static async Task ListenAsync(ListenForProbeRequest request, Func<int, Task> opened, CancellationToken cancellation)
    {
        byte[] token = Token(request.Token.Span);
        IPAddress address = Address(request.Address);
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(s_longestListening);
        using var listener = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            listener.Bind(new IPEndPoint(address, 0));
            listener.Listen(64);
        }
        catch (SocketException e)
        {
            throw new RpcException(new Status(StatusCode.FailedPrecondition, $"No port can be opened on {address}: {e.Message}."));
        }

        await opened(((IPEndPoint)listener.LocalEndPoint!).Port);
        try
        {
            while (true)
            {
                // One after the other: whoever says nothing keeps the others waiting for no longer than the token may take.
                using Socket peer = await listener.AcceptAsync(limit.Token);
                await AnswerAsync(peer, token, limit.Token);
            }
        }
        catch (OperationCanceledException)
        {
            // The caller knows what it wanted to know.
        }
    }

    /// <summary>Connects, and waits for the token to come back.</summary>
    /// <exception cref="RpcException">INVALID_ARGUMENT.</exception>
    public static async Task<ProbeReply> ConnectAsync(ProbeRequest request, CancellationToken cancellation)
    {
        byte[] token = Token(request.Token.Span);
        IPAddress address = Address(request.Address);
        if (request.Port is 0 or > IPEndPoint.MaxPort)
        {
            throw new RpcException(new Status(StatusCode.InvalidArgument, $"{request.Port} is no port."));
        }

        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(s_patience);
        using var socket = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            await socket.ConnectAsync(new IPEndPoint(address, (int)request.Port), limit.Token);
            long began = Stopwatch.GetTimestamp();
            await socket.SendAsync(token, limit.Token);
            byte[] answer = new byte[token.Length];
            return await ReadAsync(socket, answer, limit.Token) && CryptographicOperations.FixedTimeEquals(answer, token)
                ? new ProbeReply { Reached = true, Microseconds = Stopwatch.GetElapsedTime(began).TotalMicroseconds }
                : new ProbeReply { Detail = "another host answers there" };
        }
        catch (SocketException e)
        {
            return new ProbeReply { Detail = e.Message };
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            return new ProbeReply { Detail = $"no answer within {s_patience.TotalSeconds:0} s" };
        }
    }

    private static async Task AnswerAsync(Socket peer, byte[] token, CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(TimeSpan.FromSeconds(1));
        byte[] said = new byte[token.Length];
        try
        {
            if (await ReadAsync(peer, said, limit.Token) && CryptographicOperations.FixedTimeEquals(said, token))
            {
                await peer.SendAsync(token, limit.Token);
            }
        }
        catch (SocketException)
        {
            // Its own end says so.
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            // It said nothing; the next one's turn.
        }
    }

    private static async Task<bool> ReadAsync(Socket socket, byte[] into, CancellationToken cancellation)
    {
        for (int have = 0; have < into.Length;)
        {
            int more = await socket.ReceiveAsync(into.AsMemory(have), cancellation);
            if (more == 0)
            {
                return false;
            }

            have += more;
        }

        return true;
    }

    private static byte[] Token(ReadOnlySpan<byte> token) => token.Length is >= LeastToken and <= MostToken
        ? token.ToArray()
        : throw new RpcException(new Status(StatusCode.InvalidArgument, $"A token has {LeastToken} to {MostToken} bytes."));

    private static IPAddress Address(string text) => IPAddress.TryParse(text, out IPAddress? address)
        ? address
        : throw new RpcException(new Status(StatusCode.InvalidArgument, "This is no IP address."));
}
