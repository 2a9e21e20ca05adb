using System.Net;
using System.Net.Sockets;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>
/// The way to a sub-host's store: passes on what is sent, until it is told to hold the connections that there are. These then stay open, and nothing
/// more comes through them, as while TCP waits before it repeats what a cut has lost; those that are opened later are not held.
/// </summary>
internal sealed class TestLink : IDisposable
{
    private readonly int _port;
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly Lock _lock = new();
    private readonly List<Pair> _pairs = [];

    /// <param name="port">The store's.</param>
    public TestLink(int port)
    {
        _port = port;
        _listener.Start();
        Port = ((IPEndPoint)_listener.LocalEndpoint).Port;
        new Thread(Accept) { IsBackground = true }.Start();
    }

    public int Port { get; }

    /// <summary>Holds all connections that there are, for ever or until <see cref="LetGo"/>.</summary>
    public void Hold()
    {
        lock (_lock)
        {
            _pairs.ForEach(pair => pair.Open.Reset());
        }
    }

    /// <summary>What was held goes on, as far as anybody still wants it.</summary>
    public void LetGo()
    {
        lock (_lock)
        {
            _pairs.ForEach(pair => pair.Open.Set());
        }
    }

    public void Dispose()
    {
        _listener.Stop();
        lock (_lock)
        {
            foreach (var pair in _pairs)
            {
                pair.Open.Set();
                pair.Near.Dispose();
                pair.Far.Dispose();
            }
        }
    }

    private static void Pass(Socket from, Socket to, ManualResetEventSlim open)
    {
        byte[] buffer = new byte[64 * 1024];
        try
        {
            int got;
            while ((got = from.Receive(buffer)) > 0)
            {
                open.Wait();
                for (int sent = 0; sent < got;)
                {
                    sent += to.Send(buffer.AsSpan(sent, got - sent));
                }
            }

            open.Wait();
            to.Shutdown(SocketShutdown.Send);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // One of the two has gone: so has the connection.
            from.Dispose();
            to.Dispose();
        }
    }

    private void Accept()
    {
        try
        {
            while (true)
            {
                var near = _listener.AcceptSocket();
                var far = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
                near.NoDelay = true;
                far.Connect(IPAddress.Loopback, _port);
                var pair = new Pair(near, far, new(true));
                lock (_lock)
                {
                    _pairs.Add(pair);
                }

                new Thread(() => Pass(near, far, pair.Open)) { IsBackground = true }.Start();
                new Thread(() => Pass(far, near, pair.Open)) { IsBackground = true }.Start();
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // Stopped.
        }
    }

    private sealed record Pair(Socket Near, Socket Far, ManualResetEventSlim Open);
}
