using System.Text;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using FCtrans.Agent.Workers;

namespace FCtrans.Agent.Migration;

/// <summary>
/// The source's end of its control connection to the main host: what is where, the device state, and the steps of the
/// switch-over (<see cref="ControlCode"/>). Any thread sends; a thread of its own reads.
/// <para>
/// A connection that is lost is opened again, and all that the main host has not confirmed is sent again, in its order. Each message
/// has a number, and the main host passes over what it has applied before: so each is applied once, also a piece of device state.
/// Those that may be applied twice anyway (commit, abort) have the number 0. So sending never fails by itself: what is sent while
/// there is no connection waits in the log. What fails is the channel, when the main host does not come back in time or says no.
/// </para>
/// </summary>
internal sealed class ControlChannel : IDisposable
{
    /// <summary>Messages after which a confirmation is asked for unbidden, so that the log stays short.</summary>
    private const int ConfirmEvery = 4096;

    /// <summary>Messages in the log beyond which a sender waits for confirmations. More than <see cref="ConfirmEvery"/>, so that one is under way.</summary>
    internal const int MostUnconfirmed = 32 << 10;

    private static readonly TimeSpan s_connectTimeout = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_attempt = TimeSpan.FromSeconds(1);

    private readonly Func<TimeSpan, CancellationToken, FrameConnection> _connect;
    private readonly Thread _reader;
    private readonly CancellationTokenSource _stop = new();

    /// <summary>Guards what was received; pulsed at every change. Never taken before <see cref="_sendGate"/>.</summary>
    private readonly object _gate = new();
    private readonly HashSet<ControlCode> _received = [];

    /// <summary>The number of the last barrier that was answered; written by the reader only.</summary>
    private uint _confirmed;
    private string? _failure;

    /// <summary>Guards the log, the connection and what is written to it. Taken alone.</summary>
    private readonly Lock _sendGate = new();
    private readonly Queue<(FrameHeader Header, byte[] Payload)> _log = [];

    /// <summary>The log's length, for those without the gate.</summary>
    private volatile int _unconfirmed;
    private volatile FrameConnection _connection;
    private uint _sequence;
    private long _earlierBytes;
    private int _reconnects;
    private long _patience = 30_000;
    private volatile bool _isConnected = true;

    /// <param name="connect">Opens the connection: at the beginning, and again when it was lost.</param>
    /// <param name="timeout">For the first time; null: 10 s.</param>
    /// <exception cref="PeerConnectionException">It could not be opened.</exception>
    public ControlChannel(Func<TimeSpan, CancellationToken, FrameConnection> connect, TimeSpan? timeout = null)
    {
        _connect = connect;
        _connection = connect(timeout ?? s_connectTimeout, CancellationToken.None);
        _reader = new Thread(Read) { IsBackground = true, Name = "control" };
        _reader.Start();
    }

    /// <summary>Called once, on the channel's own thread, when it has failed for good.</summary>
    public Action<MigrationException>? Failed { get; set; }

    public long BytesSent => Interlocked.Read(ref _earlierBytes) + _connection.BytesSent;

    /// <summary>How often a lost connection was replaced.</summary>
    public int Reconnects => Volatile.Read(ref _reconnects);

    /// <summary>Whether what is sent now leaves now, as far as one can know.</summary>
    public bool IsConnected => _isConnected;

    /// <summary>Messages that the main host has not confirmed; <see cref="MostUnconfirmed"/> and a few at most.</summary>
    public int Unconfirmed => _unconfirmed;

    /// <summary>How long a lost connection is tried again. May change while it is.</summary>
    public TimeSpan Patience
    {
        set => Volatile.Write(ref _patience, (long)value.TotalMilliseconds);
    }

    /// <summary>Ours, as the main host sees it.</summary>
    public System.Net.IPAddress LocalAddress => _connection.LocalAddress;

    /// <summary>Names pages that should stay on the main host.</summary>
    public void SendPinned(PageBitmap pages)
    {
        for (long from = 0; pages.NextRun(from, long.MaxValue, out var run); from = run.End)
        {
            Post(FrameHeader.Of(FrameType.Pinned, run), []);
        }
    }

    /// <param name="range">The pages.</param>
    /// <param name="sub">The sub-host that has them; null: nobody, they are unused.</param>
    /// <param name="cancel">Gives up waiting for the main host to take what was sent before.</param>
    public void SendLocated(PageRange range, int? sub, CancellationToken cancel) => Post(
        sub is { } index ? FrameHeader.Of(FrameType.Located, range, flags: (byte)index) : FrameHeader.Of(FrameType.Discard, range), [],
        cancel: cancel);

    public void SendDeviceState(ReadOnlyMemory<byte> piece, bool last) =>
        Post(FrameHeader.Of(FrameType.DeviceState, flags: last ? (byte)1 : (byte)0), piece.ToArray(), flush: true);

    /// <exception cref="MigrationException">The channel has failed.</exception>
    public void Send(ControlCode code, string text = "") => Post(
        FrameHeader.Of(FrameType.Control),
        [(byte)code, .. Encoding.UTF8.GetBytes(text)],
        flush: true,
        once: code is not (ControlCode.Commit or ControlCode.Abort));

    /// <summary>Returns when the main host has applied all that was sent.</summary>
    /// <exception cref="MigrationException">The channel has failed.</exception>
    public void Barrier(CancellationToken cancel)
    {
        uint sequence = Post(FrameHeader.Of(FrameType.Barrier), [], flush: true);
        WaitUntil(() => _confirmed >= sequence, cancel);
    }

    /// <exception cref="MigrationException">The channel has failed.</exception>
    public void WaitFor(ControlCode code, CancellationToken cancel) => WaitUntil(() => _received.Contains(code), cancel);

    public void Dispose()
    {
        _stop.Cancel();
        lock (_sendGate)
        {
            _connection.Abort();
        }

        _reader.Join();
        _connection.Dispose();
        _stop.Dispose();
    }

    private uint Post(FrameHeader header, byte[] payload, bool flush = false, bool once = true, CancellationToken cancel = default)
    {
        lock (_gate)
        {
            ThrowIfFailed();
        }

        // A last word, which is repeated anyway, waits for nobody.
        if (once && _unconfirmed >= MostUnconfirmed)
        {
            WaitUntil(() => _unconfirmed < MostUnconfirmed, cancel);
        }

        lock (_sendGate)
        {
            uint sequence = 0;
            if (once)
            {
                sequence = ++_sequence;
                Log(header with { Sequence = sequence }, payload);
                if (sequence % ConfirmEvery == 0)
                {
                    Log(FrameHeader.Of(FrameType.Barrier, ++_sequence), []);
                    flush = true;
                }
            }
            else
            {
                Log(header, payload);
            }

            if (flush && _isConnected)
            {
                Write(_connection.Flush);
            }

            return sequence;
        }
    }

    /// <summary>Under the send gate.</summary>
    private void Log(FrameHeader header, byte[] payload)
    {
        _log.Enqueue((header, payload));
        _unconfirmed = _log.Count;
        if (_isConnected)
        {
            Write(() => _connection.Send(header, payload));
        }
    }

    /// <summary>Under the send gate. What could not be written is in the log; the reader finds out and connects again.</summary>
    private void Write(Action write)
    {
        try
        {
            write();
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            _isConnected = false;
            _connection.Abort();
        }
    }

    private void WaitUntil(Func<bool> condition, CancellationToken cancel)
    {
        using var registration = cancel.Register(Pulse);
        lock (_gate)
        {
            while (!condition())
            {
                cancel.ThrowIfCancellationRequested();
                ThrowIfFailed();
                Monitor.Wait(_gate);
            }
        }
    }

    /// <summary>Under the gate.</summary>
    private void ThrowIfFailed()
    {
        if (_failure is { } failure)
        {
            throw new MigrationException(failure);
        }
    }

    private void Pulse()
    {
        lock (_gate)
        {
            Monitor.PulseAll(_gate);
        }
    }

    private void Read()
    {
        byte[] buffer = new byte[FrameHeader.MaxPayloadBytes];
        string? failure;
        do
        {
            string lost = "The main host closed the connection.";
            failure = null;
            try
            {
                while (failure is null && _connection.Read(out var header, buffer))
                {
                    failure = Take(header, buffer.AsSpan(0, header.PayloadBytes));
                }
            }
            catch (ProtocolException e)
            {
                // Said on purpose: trying again would be of no use.
                failure = $"The main host ended the connection: {e.Message}";
            }
            catch (Exception e) when (e is IOException or ObjectDisposedException)
            {
                lost = $"The connection to the main host broke: {e.Message}";
            }

            failure ??= TryReconnect(lost);
        }
        while (failure is null);

        lock (_gate)
        {
            _failure = failure;
            Monitor.PulseAll(_gate);
        }

        _isConnected = false;
        if (!_stop.IsCancellationRequested)
        {
            Failed?.Invoke(new MigrationException(failure));
        }
    }

    /// <returns>Why nothing more can come of this channel; null: all is well.</returns>
    private string? Take(in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        if (header.Type == FrameType.Control && (ControlCode)payload[0] == ControlCode.Failed)
        {
            return "The main host failed: " + Encoding.UTF8.GetString(payload[1..]);
        }

        if (header.Type == FrameType.BarrierDone)
        {
            lock (_sendGate)
            {
                if (header.Sequence > _sequence)
                {
                    return $"The main host confirmed message {header.Sequence}, which was never sent.";
                }

                // An answer that comes a second time confirms nothing more.
                while (header.Sequence > _confirmed && _log.TryDequeue(out var done) && done.Header.Sequence != header.Sequence)
                {
                }

                _unconfirmed = _log.Count;
            }
        }
        else if (header.Type != FrameType.Control)
        {
            return $"The main host sent a frame of type {header.Type}, which it may not.";
        }

        lock (_gate)
        {
            if (header.Type == FrameType.BarrierDone)
            {
                _confirmed = Math.Max(_confirmed, header.Sequence);
            }
            else
            {
                _received.Add((ControlCode)payload[0]);
            }

            Monitor.PulseAll(_gate);
        }

        return null;
    }

    /// <returns>Why it did not work; null: the connection is there again, and what had not been confirmed is on its way.</returns>
    private string? TryReconnect(string lost)
    {
        _isConnected = false;
        long lostAt = Environment.TickCount64;
        while (!_stop.IsCancellationRequested)
        {
            FrameConnection connection;
            try
            {
                connection = _connect(s_attempt, _stop.Token);
            }
            catch (PeerConnectionException e)
            {
                if (e.IsFinalAfter(Environment.TickCount64 - lostAt, Volatile.Read(ref _patience)))
                {
                    return $"{lost} It did not come back: {e.Message}";
                }

                continue;
            }
            catch (OperationCanceledException)
            {
                break;
            }

            WorkerLog.Write($"{lost} It was opened again.");
            lock (_sendGate)
            {
                Interlocked.Add(ref _earlierBytes, _connection.BytesSent);
                Interlocked.Increment(ref _reconnects);
                _connection.Dispose();
                _connection = connection;
                _isConnected = true;
                foreach (var (header, payload) in _log)
                {
                    Write(() => connection.Send(header, payload));
                }

                Write(connection.Flush);
                if (_stop.IsCancellationRequested)
                {
                    connection.Abort();
                }
            }

            return null;
        }

        return lost;
    }
}
