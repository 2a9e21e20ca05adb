using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Changes a store: one thread (the evictor's, or whoever rebuilds a page table before there is one) opens a batch, puts and discards,
/// and commits; only after <see cref="Commit"/> has said true may it forget what it sent. Anything else means: not known, do it again.
/// </summary>
internal sealed unsafe class BulkChannel(RemoteStoreOptions options) : StoreChannel(options, ConnectionPurpose.Bulk)
{
    private const string FullMark = "full:";

    private readonly object _lock = new();
    private FrameConnection? _batch;
    private uint _sequence;
    private uint _acknowledged;
    private Action<PageRange>? _held;
    private bool _listed;
    private volatile bool _full;

    /// <summary>The store has refused pages for want of room. Until the next discard is acknowledged.</summary>
    public bool IsFull => _full;

    /// <summary>1 while a batch is open, which the store is to acknowledge.</summary>
    public override int Outstanding => Volatile.Read(ref _batch) is null ? 0 : 1;

    /// <summary>Begins a batch; false when the store is away.</summary>
    public bool Begin()
    {
        _batch = Connection;
        return _batch is not null;
    }

    /// <param name="content">As many pages as the range has; at most <see cref="FrameHeader.MaxPages"/>. May change when this returns.</param>
    public void Put(PageRange range, byte* content) =>
        Send(FrameHeader.Of(FrameType.Pages, range), new ReadOnlySpan<byte>(content, (int)range.Bytes));

    /// <summary>As <see cref="Put"/>, of pages that <see cref="RowCodec"/> has made small.</summary>
    public void PutRows(PageRange range, ReadOnlySpan<byte> rows) => Send(FrameHeader.Of(FrameType.RowPages, range), rows);

    public void Discard(PageRange range) => Send(FrameHeader.Of(FrameType.Discard, range), default);

    /// <summary>Sends the batch on its way, with a barrier at its end; <see cref="Commit"/> waits for that.</summary>
    public void Close()
    {
        Send(FrameHeader.Of(FrameType.Barrier, ++_sequence), default);
        try
        {
            _batch?.Flush();
        }
        catch (IOException)
        {
            Fail();
        }
    }

    /// <summary>After <see cref="Close"/>: waits until the store has said that it has applied the batch. False when that is not known.</summary>
    public bool Commit()
    {
        long end = Environment.TickCount64 + (long)Options.AnswerTimeout.TotalMilliseconds;
        lock (_lock)
        {
            while (_batch is not null && _acknowledged != _sequence)
            {
                int left = (int)(end - Environment.TickCount64);
                if (_batch != Connection || Stopping)
                {
                    _batch = null;
                }
                else if (left <= 0)
                {
                    // It hears us but does not answer: to the pages in the batch that is as good as away.
                    Fail();
                }
                else
                {
                    Monitor.Wait(_lock, left);
                }
            }
        }

        bool done = _batch is not null;
        _batch = null;
        return done;
    }

    /// <summary>All pages that the store has, in order; blocks until they are here, waiting for the store as long as it takes.</summary>
    /// <param name="held">Called on the channel's thread. After a cut the list begins anew: a page may come twice.</param>
    /// <exception cref="OperationCanceledException"><paramref name="cancellation"/> came first, or the channel was disposed.</exception>
    public void List(Action<PageRange> held, CancellationToken cancellation)
    {
        lock (_lock)
        {
            while (true)
            {
                cancellation.ThrowIfCancellationRequested();
                ObjectDisposedException.ThrowIf(Stopping, this);
                if (Begin())
                {
                    _held = held;
                    _listed = false;
                    Send(FrameHeader.Of(FrameType.List), default);
                    try
                    {
                        _batch?.Flush();
                    }
                    catch (IOException)
                    {
                        Fail();
                    }

                    while (!_listed && _batch is not null && _batch == Connection && !cancellation.IsCancellationRequested && !Stopping)
                    {
                        Monitor.Wait(_lock, 100);
                    }

                    _held = null;
                    if (_listed)
                    {
                        _batch = null;
                        return;
                    }
                }
                else
                {
                    Monitor.Wait(_lock, 100);
                }
            }
        }
    }

    /// <summary>Has the store forget pages, however long that takes.</summary>
    /// <exception cref="OperationCanceledException"><paramref name="cancellation"/> came first, or the channel was disposed.</exception>
    public void Forget(IReadOnlyList<PageRange> pages, CancellationToken cancellation)
    {
        const int pauseMilliseconds = 20;
        for (bool done = pages.Count == 0; !done;)
        {
            cancellation.ThrowIfCancellationRequested();
            ObjectDisposedException.ThrowIf(Stopping, this);
            if (Begin())
            {
                foreach (var range in pages)
                {
                    Discard(range);
                }

                Close();
                done = Commit();
            }

            if (!done)
            {
                cancellation.WaitHandle.WaitOne(pauseMilliseconds);
            }
        }
    }

    protected override void Connected(FrameConnection connection)
    {
        lock (_lock)
        {
            Monitor.PulseAll(_lock);
        }
    }

    protected override void Received(FrameConnection connection, in FrameHeader frame)
    {
        lock (_lock)
        {
            switch (frame.Type)
            {
                case FrameType.BarrierDone:
                    _acknowledged = frame.Sequence;
                    break;
                case FrameType.Held:
                    _held?.Invoke(frame.Range);
                    return;
                case FrameType.ListDone:
                    _listed = true;
                    break;
                default:
                    throw connection.Refuse($"A store sends no frames of type {(int)frame.Type} here.");
            }

            Monitor.PulseAll(_lock);
        }
    }

    protected override void Disconnected(string error)
    {
        lock (_lock)
        {
            if (error.Contains(FullMark, StringComparison.Ordinal))
            {
                _full = true;
            }

            Monitor.PulseAll(_lock);
        }
    }

    /// <summary>
    /// Ends the connection: what was sent and is not acknowledged fails, and the next one begins only when the store has applied all that
    /// came before on any connection that changes it.
    /// </summary>
    public void Interrupt() => Connection?.Abort();

    /// <summary>The store has refused pages for want of room on another connection.</summary>
    public void NoteFull(string error) => _full |= error.Contains(FullMark, StringComparison.Ordinal);

    /// <summary>Discards were acknowledged: there is room again.</summary>
    public void ClearFull() => _full = false;

    private void Send(in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        try
        {
            _batch?.Send(header, payload);
        }
        catch (IOException)
        {
            Fail();
        }
    }

    private void Fail()
    {
        _batch?.Abort();
        _batch = null;
    }
}
