using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Paging;

/// <summary>
/// One connection to a sub-host's store that comes back after every cut, for as long as the channel lives: a thread of its own connects,
/// reads until the connection ends, and connects again. Another thread may have made the next one already (<see cref="TryMove"/>): also then the
/// old one is over for all before anybody has the new one.
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

    /// <summary>The number of the last connection that this one went over to.</summary>
    private volatile int _movedTo;
    private volatile string? _endedBecause;

    /// <summary>Guards which connection is the one, and <see cref="_next"/>, which only exists while there is one to be replaced.</summary>
    private readonly Lock _moving = new();
    private FrameConnection? _next;

    // Of a connection that was left because it was silent, and of the one after it. Written before that is the connection.
    private volatile bool _wasLeft;
    private volatile bool _hasToAnswer;
    private long _receivedBefore;

    // Of the last look whether answers come. Written by the looking thread; one that reads them in between finds it silent, or not, too early or late.
    private volatile int _lookedAt;
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
    /// Looks whether the store answers, and says for how many milliseconds it has owed answers and not sent a byte. A
    /// slow store is not silent, however long its answers take. Called in equal steps, by one thread.
    /// </summary>
    /// <param name="milliseconds">Since the last look, as far as it was spent looking: not more than a few steps.</param>
    public long Look(long milliseconds)
    {
        int connection = _connections;
        bool owed = IsOwed;
        long received = BytesReceived;
        // A store that hangs accepts connections: going over to another one is no sign of life.
        bool silent = owed && _lookedOwed && (connection == _lookedAt ? received == _lookedReceived : connection == _movedTo);
        long silence = silent ? _silentMilliseconds + milliseconds : 0;
        _lookedOwed = owed;
        Interlocked.Exchange(ref _lookedReceived, received);
        Interlocked.Exchange(ref _silentMilliseconds, silence);
        _lookedAt = connection;
        return silence;
    }

    /// <summary>
    /// Its connection may be left for another: it was silent for <see cref="RemoteStoreOptions.ProbeAfter"/> when it was looked at last, and has been since.
    /// One that was taken for such a reason has to answer first. Else a store that takes its time would be asked anew each time before it has
    /// answered. From any thread.
    /// </summary>
    public bool IsSilent => Interlocked.Read(ref _silentMilliseconds) >= (long)_options.ProbeAfter.TotalMilliseconds
        && IsOwed && _connections == _lookedAt && BytesReceived == Interlocked.Read(ref _lookedReceived)
        && (!_hasToAnswer || _connection?.BytesReceived > Interlocked.Read(ref _receivedBefore));

    /// <summary>
    /// Goes over to a connection that another thread has made, if this one is silent: as after a cut, but that the next connection is there
    /// already. True: it is this channel's from now on.
    /// </summary>
    public bool TryMove(FrameConnection next, string reason)
    {
        FrameConnection old;
        lock (_moving)
        {
            if (_connection is not { } current || _next is not null || _stopping || !IsSilent)
            {
                return false;
            }

            old = current;
            _wasLeft = true;
            _next = next;
        }

        _endedBecause = reason;
        old.Abort();
        return true;
    }

    /// <summary>As <see cref="Abort"/>, if <see cref="IsSilent"/>.</summary>
    public void AbortIfSilent(string reason)
    {
        if (IsSilent)
        {
            _wasLeft = true;
            Abort(reason);
        }
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
            if (TakeNext() is { } made)
            {
                _movedTo = _connections + 1;
                Serve(made);
                continue;
            }

            FrameConnection connection;
            try
            {
                connection = _options.Connect(_purpose, s_attempt, out var store, _stop.Token);
                LimitPages = store.LimitPages;
            }
            catch (OperationCanceledException)
            {
                break;
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

        TakeNext()?.Dispose();
    }

    private FrameConnection? TakeNext()
    {
        lock (_moving)
        {
            var next = _next;
            _next = null;
            return next;
        }
    }

    private void Serve(FrameConnection connection)
    {
        string error;
        try
        {
            _endedBecause = null;
            Interlocked.Exchange(ref _receivedBefore, connection.BytesReceived);
            _hasToAnswer = _wasLeft;
            _wasLeft = false;
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
        lock (_moving)
        {
            // From here on nobody adds a next one: what there is now is taken before this channel connects.
            _connection = null;
        }

        Interlocked.Add(ref _earlierSent, connection.BytesSent);
        Interlocked.Add(ref _earlierReceived, connection.BytesReceived);
        connection.Dispose();
        Disconnected(error);
    }
}
