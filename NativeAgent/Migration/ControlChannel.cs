using System.Text;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Migration;

/// <summary>
/// The source's end of its control connection to the main host: what is where, the device state, and the steps of the
/// switch-over (<see cref="ControlCode"/>). One thread sends; a thread of its own reads.
/// </summary>
internal sealed class ControlChannel : IDisposable
{
    private readonly FrameConnection _connection;
    private readonly Thread _reader;
    private readonly object _gate = new();
    private readonly HashSet<ControlCode> _received = [];
    private uint _barrierSent;
    private uint _barrierDone;
    private string? _failure;

    public ControlChannel(FrameConnection connection)
    {
        _connection = connection;
        _reader = new Thread(Read) { IsBackground = true, Name = "control" };
        _reader.Start();
    }

    public long BytesSent => _connection.BytesSent;

    /// <summary>Ours, as the main host sees it.</summary>
    public System.Net.IPAddress LocalAddress => _connection.LocalAddress;

    /// <summary>Names pages that should stay on the main host.</summary>
    public void SendPinned(PageBitmap pages) => Sending(() =>
    {
        for (long from = 0; pages.NextRun(from, long.MaxValue, out var run); from = run.End)
        {
            _connection.Send(FrameHeader.Of(FrameType.Pinned, run));
        }
    });

    /// <param name="range">The pages.</param>
    /// <param name="sub">The sub-host that has them; null: nobody, they are unused.</param>
    public void SendLocated(PageRange range, int? sub) => Sending(() =>
    {
        if (sub is { } index)
        {
            _connection.Send(FrameHeader.Of(FrameType.Located, range, flags: (byte)index), default);
        }
        else
        {
            _connection.Send(FrameHeader.Of(FrameType.Discard, range), default);
        }
    });

    public void SendDeviceState(ReadOnlyMemory<byte> piece, bool last) => Sending(() =>
    {
        _connection.Send(FrameHeader.Of(FrameType.DeviceState, flags: last ? (byte)1 : (byte)0), piece.Span);
        _connection.Flush();
    });

    public void Send(ControlCode code, string text = "") =>
        Sending(() => _connection.SendText(FrameType.Control, (byte)code, text));

    /// <summary>Returns when the main host has applied all that was sent.</summary>
    public void Barrier(CancellationToken cancel)
    {
        uint sequence = ++_barrierSent;
        Sending(() =>
        {
            _connection.Send(FrameHeader.Of(FrameType.Barrier, sequence), default);
            _connection.Flush();
        });
        WaitUntil(() => _barrierDone == sequence, cancel);
    }

    /// <exception cref="MigrationException">The connection broke, or the main host failed.</exception>
    public void WaitFor(ControlCode code, CancellationToken cancel) => WaitUntil(() => _received.Contains(code), cancel);

    public void Dispose()
    {
        _connection.Abort();
        _reader.Join();
        _connection.Dispose();
    }

    private static void Sending(Action send)
    {
        try
        {
            send();
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            throw new MigrationException($"The connection to the main host broke: {e.Message}", e);
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
                if (_failure is { } failure)
                {
                    throw new MigrationException(failure);
                }

                Monitor.Wait(_gate);
            }
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
        string failure = "The main host closed the connection.";
        byte[] buffer = new byte[FrameHeader.MaxPayloadBytes];
        try
        {
            while (_connection.Read(out var header, buffer))
            {
                var payload = buffer.AsSpan(0, header.PayloadBytes);
                lock (_gate)
                {
                    switch (header.Type)
                    {
                        case FrameType.BarrierDone:
                            _barrierDone = header.Sequence;
                            break;
                        case FrameType.Control when payload.Length > 0 && (ControlCode)payload[0] == ControlCode.Failed:
                            _failure = "The main host failed: " + Encoding.UTF8.GetString(payload[1..]);
                            break;
                        case FrameType.Control when payload.Length > 0:
                            _received.Add((ControlCode)payload[0]);
                            break;
                        default:
                            _failure = $"The main host sent a frame of type {header.Type}, which it may not.";
                            break;
                    }

                    Monitor.PulseAll(_gate);
                }
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            failure = $"The connection to the main host broke: {e.Message}";
        }

        lock (_gate)
        {
            _failure ??= failure;
            Monitor.PulseAll(_gate);
        }
    }
}
