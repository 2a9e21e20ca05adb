using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Text;
using FCtrans.Contracts;

namespace FCtrans.Agent.Transport;

/// <summary>What a <see cref="PeerListener"/> listens for.</summary>
internal sealed record PeerListenerOptions
{
    public required IPAddress Address { get; init; }

    /// <summary>0: any free one.</summary>
    public int Port { get; init; }

    /// <summary>Our own role: main or sub.</summary>
    public required WorkerRole Role { get; init; }

    public required string SplitId { get; init; }

    /// <summary>Pages of the VM.</summary>
    public required long Pages { get; init; }

    /// <summary>Ours; null: without TLS, for a private network only. The split id, 128 random bits, is then the only proof of a peer.</summary>
    public required WorkerCertificate? Certificate { get; init; }

    /// <summary>Whom we let in: SHA-256 thumbprint of a worker's certificate in hexadecimal, and its role.</summary>
    public required IReadOnlyDictionary<string, WorkerRole> Peers { get; init; }

    /// <summary>For our Hello: pages that our store may hold; 0: no store, or no limit.</summary>
    public long LimitPages { get; init; }

    /// <summary>Why only control connections are let in; null: all are. The peer is told.</summary>
    public string? ControlOnly { get; init; }

    /// <summary>From accept to Hello.</summary>
    public TimeSpan HandshakeTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>
    /// How many connections that have not proved anything may exist at once. For one more the oldest is closed: strangers that say nothing
    /// must not keep out a peer that comes back.
    /// </summary>
    public int MaxHandshakes { get; init; } = 16;

    /// <summary>How many connections of peers may exist at once, each with a thread and buffers. Far more than a split VM with all its hosts has.</summary>
    public int MaxConnections { get; init; } = 256;
}

/// <summary>
/// A worker's data port. Each connection gets a thread of its own: it does the handshake there and then calls the callback, which may
/// keep it as long as the connection lives. Who is not a peer of this very split VM is refused and counted.
/// <para>
/// A peer has one control, one bulk and one take connection of each stream number. When it opens another, the old one has broken on its side, but
/// frames of it may still lie in our socket: they are served to the end before the new one gets our Hello, and before a new bulk connection does
/// those of a take connection too. Otherwise an old copy of a page could land on a newer one.
/// </para>
/// Dispose ends the connections and waits for their threads.
/// </summary>
internal sealed class PeerListener : IDisposable
{
    private readonly PeerListenerOptions _options;
    private readonly Action<FrameConnection, PeerHello> _serve;
    private readonly Dictionary<string, WorkerRole> _peers;
    private readonly Socket _listener;
    private readonly Thread _accepter;
    /// <summary>Guards the collections; pulsed when a bulk or control connection has ended.</summary>
    private readonly object _lock = new();
    private readonly Dictionary<(WorkerRole Role, ConnectionPurpose Purpose, byte Stream), FrameConnection> _ordered = [];
    private readonly HashSet<Socket> _sockets = [];
    private readonly HashSet<FrameConnection> _connections = [];
    private readonly HashSet<Thread> _threads = [];

    /// <summary>Those that have not proved anything yet, the oldest first.</summary>
    private readonly LinkedList<Socket> _strangers = [];

    /// <summary>Connections of peers, also those that wait for their turn.</summary>
    private int _peerConnections;
    private long _accepted;
    private long _refused;
    private volatile bool _stopping;
    private volatile string? _lastRefusal;

    /// <param name="serve">
    /// Called on the connection's own thread. The connection is ended and disposed when it returns or throws; what it throws besides
    /// <see cref="IOException"/> is a bug and ends the process.
    /// </param>
    /// <exception cref="IOException">The address can't be bound.</exception>
    public PeerListener(PeerListenerOptions options, Action<FrameConnection, PeerHello> serve)
    {
        _options = options;
        _serve = serve;
        _peers = new(options.Peers, StringComparer.OrdinalIgnoreCase);
        _listener = new(options.Address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            // Raw: .NET's ReuseAddress would also let another process share the port. A restarted worker must get its old one.
            _listener.SetRawSocketOption(1, 2, BitConverter.GetBytes(1));
            _listener.Bind(new IPEndPoint(options.Address, options.Port));
            _listener.Listen(64);
        }
        catch (SocketException e)
        {
            _listener.Dispose();
            throw new IOException(
                $"The data port {options.Port} can't be opened on {options.Address}: {e.Message}. Check that this is an address of this host.", e);
        }

        Port = ((IPEndPoint)_listener.LocalEndPoint!).Port;
        _accepter = new Thread(AcceptLoop) { IsBackground = true, Name = "peer-accept" };
    }

    public int Port { get; }

    /// <summary>Connections that passed the handshake.</summary>
    public long Accepted => Interlocked.Read(ref _accepted);

    /// <summary>Connections that did not.</summary>
    public long Refused => Interlocked.Read(ref _refused);

    /// <summary>Why the last one was refused; null if none was.</summary>
    public string? LastRefusal => _lastRefusal;

    /// <summary>Connections that passed the handshake and live.</summary>
    public int Live
    {
        get
        {
            lock (_lock)
            {
                return _connections.Count;
            }
        }
    }

    public void Start() => _accepter.Start();

    public void Dispose()
    {
        _stopping = true;
        try
        {
            // Wakes a blocked accept(2); closing alone would not.
            _listener.Shutdown(SocketShutdown.Both);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // Nobody waits there, or it was disposed before.
        }

        _listener.Dispose();
        if (!_accepter.ThreadState.HasFlag(ThreadState.Unstarted))
        {
            _accepter.Join();
        }

        Thread[] threads;
        lock (_lock)
        {
            foreach (var connection in _connections)
            {
                connection.Abort();
            }

            foreach (var socket in _sockets)
            {
                EndHandshake(socket);
            }

            threads = [.. _threads];
        }

        foreach (var thread in threads)
        {
            thread.Join();
        }
    }

    private void AcceptLoop()
    {
        while (!_stopping)
        {
            Socket socket;
            try
            {
                socket = _listener.Accept();
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                if (_stopping)
                {
                    return;
                }

                // Out of descriptors, or a peer that was gone before we came: neither may end the listener or spin.
                Thread.Sleep(10);
                continue;
            }

            lock (_lock)
            {
                if (_stopping)
                {
                    socket.Dispose();
                    return;
                }

                if (_strangers is { First.Value: var oldest } && _strangers.Count >= _options.MaxHandshakes)
                {
                    // Its thread sees that, and counts it.
                    _strangers.RemoveFirst();
                    EndHandshake(oldest);
                }

                _strangers.AddLast(socket);
                _sockets.Add(socket);
                var thread = new Thread(() => Run(socket)) { IsBackground = true, Name = "peer" };
                _threads.Add(thread);
                thread.Start();
            }
        }
    }

    private void Run(Socket socket)
    {
        FrameConnection? connection = null;
        bool inHandshake = true;
        bool isPeer = false;
        try
        {
            Handshake(socket, out connection, out var hello, ref isPeer);
            lock (_lock)
            {
                inHandshake = false;
                _connections.Add(connection!);
            }

            Interlocked.Increment(ref _accepted);
            if (!_stopping)
            {
                _serve(connection!, hello);
            }
        }
        catch (Exception e) when (inHandshake && e is IOException or SocketException or AuthenticationException
            or ObjectDisposedException or InvalidOperationException)
        {
            Count(e.Message);
        }
        catch (IOException)
        {
            // The callback saw it; the connection is over.
        }
        finally
        {
            lock (_lock)
            {
                _strangers.Remove(socket);
                _peerConnections -= isPeer ? 1 : 0;
                _sockets.Remove(socket);
                if (connection is not null)
                {
                    _connections.Remove(connection);
                }

                foreach (var (stream, ordered) in _ordered)
                {
                    if (ordered == connection)
                    {
                        _ordered.Remove(stream);
                        Monitor.PulseAll(_lock);
                        break;
                    }
                }

                _threads.Remove(Thread.CurrentThread);
            }

            connection?.Dispose();
            socket.Dispose();
        }
    }

    private static void EndHandshake(Socket socket)
    {
        try
        {
            socket.Shutdown(SocketShutdown.Both);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // It has just ended by itself.
        }
    }

    /// <param name="connection">Set as soon as there is one, also when the handshake then fails.</param>
    /// <param name="isPeer">Set when it has proved to be a peer, and is counted as one.</param>
    private void Handshake(Socket socket, out FrameConnection? connection, out PeerHello hello, ref bool isPeer)
    {
        connection = null;
        using var deadline = new Timer(s => ((Socket)s!).Dispose(), socket, _options.HandshakeTimeout, Timeout.InfiniteTimeSpan);
        PeerTls.Configure(socket);
        var plain = new SocketStream(socket);
        Stream stream = plain;
        try
        {
            WorkerRole? role = null;
            if (_options.Certificate is { } certificate)
            {
                var secure = new SslStream(plain, leaveInnerStreamOpen: false);
                stream = secure;
                secure.AuthenticateAsServer(PeerTls.Server(certificate, _peers.Keys));
                role = _peers[WorkerCertificate.ThumbprintOf(secure.RemoteCertificate!)];
            }

            // Until the Hello has said what this connection is, only a Hello passes the reader.
            connection = new FrameConnection(stream, socket, _options.Pages, ConnectionPurpose.None, connector: false);
            hello = connection.ReadHello();
            if (Objection(hello, role) is { } objection)
            {
                var refusal = connection.Refuse(objection);
                connection.Drain();
                throw refusal;
            }

            lock (_lock)
            {
                _strangers.Remove(socket);
                isPeer = _peerConnections < _options.MaxConnections;
                _peerConnections += isPeer ? 1 : 0;
            }

            if (!isPeer)
            {
                // Not refused for good: some may be of links that broke, and end soon.
                throw new IOException($"There are {_options.MaxConnections} connections already.");
            }

            if (hello.Purpose is ConnectionPurpose.Bulk or ConnectionPurpose.Control or ConnectionPurpose.Take)
            {
                AwaitTurn(connection, (hello.Role, hello.Purpose, hello.Stream));
            }

            connection.Establish(_options.Pages, hello.Purpose);
            connection.SendHello(new(_options.SplitId, _options.Role, hello.Purpose, _options.Pages, _options.LimitPages));
            deadline.Change(Timeout.Infinite, Timeout.Infinite);
        }
        catch
        {
            stream.Dispose();
            throw;
        }
    }

    private void AwaitTurn(FrameConnection connection, (WorkerRole Role, ConnectionPurpose Purpose, byte Stream) stream)
    {
        lock (_lock)
        {
            // What a store was told to take is an old copy too.
            while (_ordered.TryGetValue(stream, out var old)
                || (stream.Purpose == ConnectionPurpose.Bulk && _ordered.TryGetValue((stream.Role, ConnectionPurpose.Take, 0), out old)))
            {
                // What is already in its socket is still read after this; then its thread leaves.
                old.Abort();
                Monitor.Wait(_lock);
            }

            _ordered[stream] = connection;
        }
    }

    private string? Objection(PeerHello hello, WorkerRole? authenticated)
    {
        if (!CryptographicOperations.FixedTimeEquals(
            Encoding.ASCII.GetBytes(hello.SplitId), Encoding.ASCII.GetBytes(_options.SplitId)))
        {
            return "This worker serves another split VM.";
        }

        if (hello.Pages != _options.Pages)
        {
            return $"The VM has {_options.Pages} pages here, not {hello.Pages}.";
        }

        if (authenticated is { } role ? role != hello.Role : !_peers.Values.Contains(hello.Role))
        {
            return $"The peer is not this split VM's {hello.Role}.";
        }

        bool allowed = (_options.Role, hello.Role, hello.Purpose) is
            (WorkerRole.Main, WorkerRole.Source, ConnectionPurpose.Bulk or ConnectionPurpose.Control)
            or (WorkerRole.Sub, WorkerRole.Source, ConnectionPurpose.Bulk or ConnectionPurpose.Control)
            or (WorkerRole.Source, WorkerRole.Main,
                ConnectionPurpose.Bulk or ConnectionPurpose.Demand or ConnectionPurpose.Drain or ConnectionPurpose.Control)
            or (WorkerRole.Source, WorkerRole.Sub, ConnectionPurpose.Demand)
            or (WorkerRole.Sub, WorkerRole.Main,
                ConnectionPurpose.Bulk or ConnectionPurpose.Demand or ConnectionPurpose.Take or ConnectionPurpose.Control);
        return allowed ? hello.Purpose == ConnectionPurpose.Control ? null : _options.ControlOnly : $"A {_options.Role} takes no {hello.Purpose} connection from a {hello.Role}.";
    }

    private void Count(string reason)
    {
        Interlocked.Increment(ref _refused);
        _lastRefusal = reason;
    }
}
