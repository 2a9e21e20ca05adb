using System.Net;
using System.Net.Sockets;
using FCtrans.Agent.Interop;

namespace FCtrans.Agent.Transport;

/// <summary>
/// Opens TCP connections to hosts whose link may come back at any moment. The kernel repeats a SYN that nobody answered after one second, then
/// after two more, and says nothing in between: a guest would wait so long for a link that has been back all the time. So there are two sockets.
/// The first has all the time there is, for a far host. The second is never older than <see cref="FreshMilliseconds"/>: then another takes its place.
/// Whichever is established first is the connection. More than two there never are: a host that comes back finds no crowd at its door.
/// </summary>
internal static class TcpConnector
{
    /// <summary>More than a handshake takes between hosts that page for each other; farther ones are reached by the first socket.</summary>
    private const int FreshMilliseconds = 150;

    /// <summary>A connected socket, set as <see cref="PeerTls.Configure"/> says; blocks for whoever uses its descriptor.</summary>
    /// <exception cref="SocketException">The host refuses, there is no way to it, or the time is over.</exception>
    /// <exception cref="OperationCanceledException"><paramref name="cancellation"/> came first; noticed within <see cref="FreshMilliseconds"/>.</exception>
    public static Socket Connect(IPAddress address, int port, int milliseconds, CancellationToken cancellation)
    {
        long end = Environment.TickCount64 + milliseconds;
        var target = new IPEndPoint(address, port);
        Socket? first = null;
        Socket? fresh = null;
        try
        {
            first = Begin(target);
            while (true)
            {
                cancellation.ThrowIfCancellationRequested();
                long left = end - Environment.TickCount64;
                if (left <= 0)
                {
                    throw new SocketException((int)SocketError.TimedOut);
                }

                if (Wait(first, fresh, (int)Math.Min(left, FreshMilliseconds)) is { } settled)
                {
                    Finish(settled);
                    (first, fresh) = (settled == first ? null : first, settled == fresh ? null : fresh);
                    return settled;
                }

                fresh?.Dispose();
                fresh = null;
                fresh = Begin(target);
            }
        }
        finally
        {
            first?.Dispose();
            fresh?.Dispose();
        }
    }

    private static Socket Begin(IPEndPoint target)
    {
        var socket = new Socket(target.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            PeerTls.Configure(socket);
            socket.Blocking = false;
            socket.Connect(target);
        }
        catch (SocketException e) when (e.SocketErrorCode is SocketError.WouldBlock or SocketError.InProgress)
        {
            // It is on its way.
        }
        catch
        {
            socket.Dispose();
            throw;
        }

        return socket;
    }

    /// <summary>The one of the two that is established or has failed; null: neither.</summary>
    private static unsafe Socket? Wait(Socket first, Socket? fresh, int milliseconds)
    {
        // Both sockets are alive until this returns: only this thread disposes them.
        var descriptors = stackalloc PollDescriptor[2];
        descriptors[0] = new() { Fd = (int)first.Handle, Events = PollDescriptor.Out };
        descriptors[1] = new() { Fd = fresh is null ? -1 : (int)fresh.Handle, Events = PollDescriptor.Out };
        if (Libc.Poll(descriptors, 2, milliseconds) <= 0)
        {
            return null;
        }

        return descriptors[0].ReturnedEvents != 0 ? first : fresh;
    }

    /// <exception cref="SocketException">It has failed.</exception>
    private static unsafe void Finish(Socket socket)
    {
        if ((SocketError)(int)socket.GetSocketOption(SocketOptionLevel.Socket, SocketOptionName.Error)! is not SocketError.Success and var error)
        {
            throw new SocketException((int)error);
        }

        // Not by Socket.Blocking: that would only make .NET's own calls wait, and ours are recv(2) and send(2).
        int nonBlocking = 0;
        if (Libc.Ioctl((int)socket.Handle, Libc.FileNonBlocking, &nonBlocking) != 0)
        {
            throw new SocketException((int)SocketError.SocketError);
        }
    }
}
