using System.Diagnostics;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;
using FCtrans.Agent.Workers;

namespace FCtrans.Agent.Migration;

/// <summary>
/// One connection of a <see cref="BulkSender"/> and the thread that fills it. Reads pages by pread, so that a hole in the RAM file
/// stays one. Allocates nothing while it sends.
/// <para>
/// A connection that is lost is opened again, and everything that the other end has not confirmed is sent again: it may have applied a part
/// of it, which is no harm, as each frame may be applied twice. Content that has changed meanwhile is sent as it is now, and the guest's
/// write that changed it has made the page dirty, so that it is sent once more.
/// </para>
/// <para>
/// So that a cut repeats little, however long a round is, the lane asks for a confirmation of its own every so often, and
/// takes the answer only when the next is due: by then it has long been there, and the link never stands still for it.
/// </para>
/// </summary>
internal sealed unsafe class SendLane : IDisposable
{
    // Small enough to stay in the core's cache from the read to the encryption.
    private const int PagesPerRead = 64;
    private const int MaxReconnectsWithoutProgress = 8;

    /// <summary>As <see cref="SendOptions.ConfirmBytes"/>, for work of few bytes: discards, and single pages.</summary>
    private const int ConfirmWorks = 16 << 10;

    private static readonly TimeSpan s_connectTimeout = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_attempt = TimeSpan.FromSeconds(1);

    private readonly BulkSender _owner;
    private readonly SendOptions _options;
    private readonly Func<TimeSpan, CancellationToken, FrameConnection> _connect;
    private readonly CancellationTokenSource _stop = new();
    private readonly byte[] _buffer = GC.AllocateArray<byte>(PagesPerRead * PageIndex.PageSize, pinned: true);
    private readonly byte[] _compressed = new byte[PageCompression.BufferBytes];
    private readonly LinkCost _cost = new();
    private readonly Thread _thread;

    /// <summary>Given and not confirmed, in its order: to be done again when the connection is lost.</summary>
    private readonly List<SendWork> _unconfirmed = [];

    /// <summary>How many of those were done on this connection.</summary>
    private int _done;

    /// <summary>How many of those the confirmation under way is for; 0: none is under way.</summary>
    private int _asked;
    private long _askedAtBytes;

    /// <summary>Sent as zeros since the last barrier: first what is confirmed, then what the confirmation under way is for.</summary>
    private readonly List<PageRange> _zeroRanges = [];
    private int _zerosConfirmed;
    private int _zerosAsked;
    private int _zeroRangeCount;
    private volatile FrameConnection _connection;
    private long _earlierBytes;
    private long _pagesSent;
    private long _zeroPages;
    private uint _sequence;
    private int _barrierDone;
    private int _reconnects;
    private int _reconnectsWithoutProgress;
    private long _patience = 30_000;

    public SendLane(BulkSender owner, SendOptions options, int index, Func<TimeSpan, CancellationToken, FrameConnection> connect)
    {
        _owner = owner;
        _options = options;
        _connect = connect;
        _connection = connect(s_connectTimeout, CancellationToken.None);
        _thread = new Thread(Run) { IsBackground = true, Name = $"send {owner.Name} {index}" };
        _thread.Start();
    }

    public long PagesSent => Interlocked.Read(ref _pagesSent);

    public long ZeroPages => Interlocked.Read(ref _zeroPages);

    public long BytesSent => Interlocked.Read(ref _earlierBytes) + _connection.BytesSent;

    public int BarrierDone => Volatile.Read(ref _barrierDone);

    public int Reconnects => Volatile.Read(ref _reconnects);

    /// <summary>How long the list of ranges of zeros is, about. Any thread.</summary>
    public int ZeroRangeCount => Volatile.Read(ref _zeroRangeCount);

    public long PatienceMilliseconds
    {
        set => Volatile.Write(ref _patience, value);
    }

    /// <summary>After a barrier only.</summary>
    public PageRange[] TakeZeroRanges()
    {
        PageRange[] ranges = [.. _zeroRanges];
        _zeroRanges.Clear();
        _zerosConfirmed = _zerosAsked = 0;
        Volatile.Write(ref _zeroRangeCount, 0);
        return ranges;
    }

    /// <summary>The owner has ended: its queue gives no more work.</summary>
    public void Dispose()
    {
        _stop.Cancel();
        if (!_thread.Join(TimeSpan.FromSeconds(2)))
        {
            // Stuck in a send to a host that doesn't answer: closing the connection ends it.
            _connection.Abort();
            _thread.Join();
        }

        _connection.Dispose();
        _stop.Dispose();
    }

    private void Run()
    {
        try
        {
            while (_owner.Take(_barrierDone) is { Kind: not SendKind.End } work)
            {
                _unconfirmed.Add(work);
                try
                {
                    DoAll();
                }
                catch (IOException e)
                {
                    Recover(e);
                }
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException or OperationCanceledException)
        {
            _owner.Fail(e);
        }
    }

    /// <summary>Does what this connection has not seen yet.</summary>
    private void DoAll()
    {
        while (_done < _unconfirmed.Count)
        {
            var work = _unconfirmed[_done];
            switch (work.Kind)
            {
                case SendKind.Pages:
                    SendPages(work.Range);
                    break;
                case SendKind.Discard:
                    _connection.Send(FrameHeader.Of(FrameType.Discard, work.Range));
                    break;
            }

            _done++;
            if (work.Kind == SendKind.Barrier)
            {
                Ask();
                Confirm();
                Volatile.Write(ref _barrierDone, (int)work.Range.First);
                _owner.Pulse();
            }
            else if (_connection.BytesSent - _askedAtBytes >= _options.ConfirmBytes || _done - _asked >= ConfirmWorks)
            {
                Ask();
            }
        }
    }

    /// <summary>Asks for the word that the host has applied all frames so far, once it has given the one that was asked for before.</summary>
    private void Ask()
    {
        Confirm();
        _connection.Send(FrameHeader.Of(FrameType.Barrier, ++_sequence));
        _connection.Flush();
        _asked = _done;
        _zerosAsked = _zeroRanges.Count;
        _askedAtBytes = _connection.BytesSent;
    }

    /// <summary>Waits for the word that was asked for, and forgets what it is for.</summary>
    private void Confirm()
    {
        if (_asked == 0)
        {
            return;
        }

        if (!_connection.Read(out var answer, _buffer))
        {
            throw new IOException("the host closed it");
        }

        if (answer.Type != FrameType.BarrierDone || answer.Sequence != _sequence)
        {
            throw new ProtocolException($"{answer.Type} {answer.Sequence} came where BarrierDone {_sequence} was due");
        }

        _unconfirmed.RemoveRange(0, _asked);
        _done -= _asked;
        _asked = 0;
        _zerosConfirmed = _zerosAsked;
        _reconnectsWithoutProgress = 0;
        FailurePoint.Reach("source.confirmed");
    }

    /// <summary>Connects again and repeats what the other end may not have applied, until that works or the patience is over.</summary>
    private void Recover(IOException cause)
    {
        long lostAt = Environment.TickCount64;
        while (true)
        {
            ThrowIfRefused(cause);
            if (++_reconnectsWithoutProgress > MaxReconnectsWithoutProgress)
            {
                throw cause;
            }

            WorkerLog.Write($"the connection to {_owner.Name} was lost ({cause.Message}) and is opened again");
            var lost = _connection;
            lost.Dispose();
            _connection = Reconnect(lostAt);
            Interlocked.Add(ref _earlierBytes, lost.BytesSent);
            Interlocked.Increment(ref _reconnects);
            try
            {
                // What is sent again may be zeros no more.
                _zeroRanges.RemoveRange(_zerosConfirmed, _zeroRanges.Count - _zerosConfirmed);
                _done = _asked = 0;
                _askedAtBytes = 0;
                DoAll();
                return;
            }
            catch (IOException e)
            {
                cause = e;
            }
        }
    }

    private FrameConnection Reconnect(long lostAt)
    {
        while (true)
        {
            try
            {
                return _connect(s_attempt, _stop.Token);
            }
            catch (PeerConnectionException e) when (!e.IsFinalAfter(Environment.TickCount64 - lostAt, Volatile.Read(ref _patience)))
            {
                _stop.Token.ThrowIfCancellationRequested();
            }
        }
    }

    /// <summary>A host that ended the connection on purpose has said why; trying again would be of no use.</summary>
    private void ThrowIfRefused(IOException cause)
    {
        if (cause is ProtocolException)
        {
            throw cause;
        }

        try
        {
            while (_connection.ReadHeader(out var header))
            {
                _connection.ReadPayload(_buffer.AsSpan(0, header.PayloadBytes));
            }
        }
        catch (Exception e) when (e is (IOException and not ProtocolException) or InvalidOperationException or ArgumentException)
        {
            // It said nothing.
        }
    }

    private void SendPages(PageRange range)
    {
        FailurePoint.Reach("source.sending");
        while (range.Count > 0)
        {
            var block = _options.Ram.BlockOf(range.First);
            long count = Math.Min(Math.Min(range.Count, PagesPerRead), block.EndPage - range.First);
            var part = new PageRange(range.First, count);
            long before = _connection.BytesSent;
            Read(block, part);
            SendBuffer(part);
            if (_options.Limiter is { } limiter)
            {
                // To whoever decides whether a byte less is worth something, the limit is the link.
                long startedAt = Stopwatch.GetTimestamp();
                limiter.Take(_connection.BytesSent - before);
                _cost.Waited(Stopwatch.GetTimestamp() - startedAt);
            }

            range = new PageRange(range.First + count, range.Count - count);
        }
    }

    private void Read(RamBlock block, PageRange range)
    {
        nint read;
        fixed (byte* buffer = _buffer)
        {
            read = SparseFile.Read(block.File, buffer, (nuint)range.Bytes, (range.First - block.FirstPage) << PageIndex.PageShift);
        }

        if (read != (nint)range.Bytes)
        {
            // Never sent as what the buffer happens to hold.
            throw new ProtocolException($"the guest's RAM file can't be read ({(read < 0 ? Errno.Name((int)-read) : "it is too short")})");
        }
    }

    /// <param name="range">What is in the buffer.</param>
    private void SendBuffer(PageRange range)
    {
        if (!_options.Reduce)
        {
            SendPlain(range, 0, (int)range.Count);
            Interlocked.Add(ref _pagesSent, range.Count);
            return;
        }

        int start = 0;
        while (start < range.Count)
        {
            bool zero = IsZero(start);
            int end = start + 1;
            while (end < range.Count && IsZero(end) == zero)
            {
                end++;
            }

            if (zero)
            {
                var zeros = new PageRange(range.First + start, end - start);
                _connection.Send(FrameHeader.Of(FrameType.ZeroPages, zeros));
                _zeroRanges.Add(zeros);
                Volatile.Write(ref _zeroRangeCount, _zeroRanges.Count);
                Interlocked.Add(ref _zeroPages, end - start);
            }
            else
            {
                SendContent(range, start, end);
            }

            start = end;
        }
    }

    private void SendContent(PageRange range, int start, int end)
    {
        Interlocked.Add(ref _pagesSent, end - start);
        int plain = start;
        for (int page = start; page < end;)
        {
            // Whatever the link: to make them small costs less than to send them.
            int after = page + RowCodec.EncodeRun(Content(page, end), _compressed, out int length);
            if (after > page)
            {
                SendPlain(range, plain, page);
                Send(FrameHeader.Of(FrameType.RowPages, new PageRange(range.First + page, after - page)), _compressed.AsSpan(0, length));
                plain = page = after;
                continue;
            }

            int most = Math.Min(page + PageCompression.BlockPages, end);
            for (after = page + 1; after < most && !RowCodec.IsLikely(Content(after, after + 1)); after++)
            {
            }

            if (_cost.ShouldCompress())
            {
                var content = Content(page, after);
                long startedAt = Stopwatch.GetTimestamp();
                bool smaller = PageCompression.TryCompress(content, _compressed, out length);
                _cost.Compressed(content.Length, smaller ? length : content.Length, startedAt);
                if (smaller)
                {
                    SendPlain(range, plain, page);
                    Send(FrameHeader.Of(FrameType.CompressedPages, new PageRange(range.First + page, after - page)), _compressed.AsSpan(0, length));
                    plain = after;
                }
            }

            page = after;
        }

        SendPlain(range, plain, end);
    }

    private void SendPlain(PageRange range, int start, int end)
    {
        if (end > start)
        {
            Send(FrameHeader.Of(FrameType.Pages, new PageRange(range.First + start, end - start)), Content(start, end));
        }
    }

    private void Send(in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        long startedAt = Stopwatch.GetTimestamp();
        _connection.Send(header, payload);
        _cost.Sent(FrameHeader.Size + payload.Length, Stopwatch.GetTimestamp() - startedAt);
    }

    private ReadOnlySpan<byte> Content(int start, int end) =>
        _buffer.AsSpan(start << PageIndex.PageShift, (end - start) << PageIndex.PageShift);

    // Vectorised by the library, and over within a page's first bytes nearly always.
    private bool IsZero(int page) =>
        !_buffer.AsSpan(page << PageIndex.PageShift, PageIndex.PageSize).ContainsAnyExcept((byte)0);
}
