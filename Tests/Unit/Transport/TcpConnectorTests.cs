using System.Net;
using System.Net.Sockets;
using FCtrans.Agent.Transport;
using Xunit;

namespace FCtrans.Unit.Tests.Transport;

public sealed class TcpConnectorTests
{
    private const int Patience = 30_000;

    /// <summary>Our streams call recv(2) and send(2), which must not come back with nothing.</summary>
    [Fact]
    public void What_it_gives_is_connected_and_its_descriptor_blocks()
    {
        using Socket listener = Listen(1);
        using Socket socket = TcpConnector.Connect(IPAddress.Loopback, PortOf(listener), Patience, default);
        using Socket accepted = listener.Accept();
        Assert.Equal(accepted.RemoteEndPoint, socket.LocalEndPoint);
        Assert.Equal(accepted.LocalEndPoint, socket.RemoteEndPoint);
        Assert.True(socket.NoDelay);
        const int nonBlocking = 0x800;
        string flags = File.ReadLines($"/proc/self/fdinfo/{(int)socket.Handle}").First(line => line.StartsWith("flags:", StringComparison.Ordinal));
        Assert.Equal(0, Convert.ToInt32(flags.Split(':')[1].Trim(), 8) & nonBlocking);
    }

    [Fact]
    public void A_host_that_refuses_is_not_waited_for()
    {
        int port;
        using (Socket listener = Listen(1))
        {
            port = PortOf(listener);
        }

        var e = Assert.Throws<SocketException>(() => TcpConnector.Connect(IPAddress.Loopback, port, Patience, default));
        Assert.Equal(SocketError.ConnectionRefused, e.SocketErrorCode);
    }

    /// <summary>A listener whose queue is full hears no SYN, as a host whose link is cut.</summary>
    [Fact]
    public async Task A_host_that_says_nothing_is_waited_for_as_long_as_is_wanted_and_reached_when_it_is_back()
    {
        using Socket listener = Listen(0);
        int port = PortOf(listener);
        using Socket first = TcpConnector.Connect(IPAddress.Loopback, port, Patience, default);
        var late = Assert.Throws<SocketException>(() => TcpConnector.Connect(IPAddress.Loopback, port, 1, default));
        Assert.Equal(SocketError.TimedOut, late.SocketErrorCode);
        using var stop = new CancellationTokenSource();
        var stopped = Task.Run(() => TcpConnector.Connect(IPAddress.Loopback, port, Patience, stop.Token));
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => stopped);
        var waiting = Task.Run(() => TcpConnector.Connect(IPAddress.Loopback, port, Patience, default));
        using Socket accepted = listener.Accept();
        using Socket second = await waiting;
        Assert.True(second.Connected);
    }

    private static Socket Listen(int backlog)
    {
        var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(backlog);
        return listener;
    }

    private static int PortOf(Socket listener) => ((IPEndPoint)listener.LocalEndPoint!).Port;
}
