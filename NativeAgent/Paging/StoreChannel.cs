using FCtrans.Agent.Transport;
using FCtrans.Contracts;

namespace FCtrans.Agent.Paging;

/// <summary>
/// One connection to a sub-host's store that comes back after every cut, for as long as the channel lives: a thread of its own connects,
/// reads until the connection ends, and connects again.
/// </summary>
internal abstract class StoreChannel : IDisposable
{
    private static readonly TimeSpan s_attempt = TimeSpan.FromSeconds(1);

    private readonly RemoteStoreOptions _options;
    private readonly ConnectionPurpose _purpose;
    private readonly Thread _thread;
    private readonly CancellationTokenSource _stop = new();
    private long _earlierSent;
    private long _earlierReceived;
    private volatile FrameConnection? _connection;
    private volatile string? _error;
    private volatile bool _stopping;
    private volatile int _connections;
    private volatile string? _endedBecause;

    // Of the last look whether answers come; the looking thread's.
    private int _lookedAt;
    private bool _lookedOwed;
    private long _lookedReceived;
    private long _silentMilliseconds;

    protected StoreChannel(RemoteStoreOptions options, ConnectionPurpose purpose)
    {
        _options = options;
        _purpose = purpose;
        _thread = new Thread(Run) { IsBackground = true, Name = $"{purpose}-{options.Index}" };
    }

    public bool IsConnected => _connection is not null;

    /// <summary>Why it is not connected, or what ended the last connection; null if there never was a problem.</summary>
    public string? Error => _error;

    public long BytesSent => Interlocked.Read(ref _earlierSent) + (_connection?.BytesSent ?? 0);

    public long BytesReceived => Interlocked.Read(ref _earlierReceived) + (_connection?.BytesReceived ?? 0);

    /// <summary>What the store said it may hold; 0 until it did or when it has no limit.</summary>
    public long LimitPages { get; private set; }

    /// <summary>Pages asked for and not here yet.</summary>
    public virtual int Outstanding => 0;

    /// <summary>There is a connection, and on it the store owes answers.</summary>
    public bool IsOwed => IsConnected && Outstanding > 0;

    protected RemoteStoreOptions Options => _options;

    protected FrameConnection? Connection => _connection;

    protected bool Stopping => _stopping;

    public void Start() => _thread.Start();

    /// <summary>Ends the connection and waits for the thread.</summary>
    public virtual void Dispose()
    {
        _stopping = true;
        _stop.Cancel();
        _connection?.Abort();
        if (!_thread.ThreadState.HasFlag(ThreadState.Unstarted))
        {
            _thread.Join();
        }
    }

    /// <summary>
    /// Looks whether the store answers. True: for <see cref="RemoteStoreOptions.AnswerTimeout"/> it has owed answers and not sent a byte. A
    /// slow store is not silent, however long its answers take. Called in equal steps, by one thread.
    /// </summary>
    /// <param name="milliseconds">Since the last look, as far as it was spent looking: not more than a few steps.</param>
    public bool IsSilent(long milliseconds)
    {
        int connection = _connections;
        bool owed = IsOwed;
        long received = BytesReceived;
        bool silent = owed && _lookedOwed && connection == _lookedAt && received == _lookedReceived;
        _silentMilliseconds = silent ? _silentMilliseconds + milliseconds : 0;
        (_lookedAt, _lookedOwed, _lookedReceived) = (connection, owed, received);
        return _silentMilliseconds >= (long)_options.AnswerTimeout.TotalMilliseconds;
    }

    /// <summary>Ends the connection; what it is for goes on when there is another one. From any thread.</summary>
    public void Abort(string reason)
    {
        if (_connection is { } connection)
        {
            _endedBecause = reason;
            connection.Abort();
        }
    }

    /// <summary>A connection is there. Runs on the channel's thread before anything is read.</summary>
    protected abstract void Connected(FrameConnection connection);

    /// <summary>Reads until the connection has ended; on the channel's thread.</summary>
    /// <exception cref="IOException">It broke.</exception>
    protected virtual void Read(FrameConnection connection)
    {
        while (connection.ReadHeader(out var frame))
        {
            Received(connection, frame);
        }
    }

    /// <summary>One frame has arrived; its payload has not been read.</summary>
    protected abstract void Received(FrameConnection connection, in FrameHeader frame);

    /// <summary>The connection has ended; nobody reads it any more.</summary>
    protected abstract void Disconnected(string error);

    private void Run()
    {
        while (!_stopping)
        {
            FrameConnection connection;
            try
            {
                connection = PeerConnector.Connect(
                    _options.Address, _options.Port, _options.Thumbprint, _options.Certificate,
                    new(_options.SplitId, WorkerRole.Main, _purpose, _options.Pages), s_attempt, _options.Certificate is not null,
                    out var store, _stop.Token);
                LimitPages = store.LimitPages;
            }
            catch (OperationCanceledException)
            {
                return;
            }
            catch (PeerConnectionException e)
            {
                _error = e.Message;
                if (e.IsRefused)
                {
                    // Perhaps the store is being set up again; do not storm it.
                    _stop.Token.WaitHandle.WaitOne(s_attempt);
                }

                continue;
            }

            Serve(connection);
        }
    }

    private void Serve(FrameConnection connection)
    {
        string error;
        try
        {
            _endedBecause = null;
            _connections++;
            _connection = connection;
            if (_stopping)
            {
                connection.Abort();
            }

            Connected(connection);
            Read(connection);
            error = _endedBecause ?? "The sub-host's worker closed the connection.";
        }
        catch (IOException e)
        {
            error = _endedBecause ?? e.Message;
        }

        _error = error;
        _connection = null;
        Interlocked.Add(ref _earlierSent, connection.BytesSent);
        Interlocked.Add(ref _earlierReceived, connection.BytesReceived);
        connection.Dispose();
        Disconnected(error);
    }
}
