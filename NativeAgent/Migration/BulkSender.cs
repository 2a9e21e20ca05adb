using System.Collections.Concurrent;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Migration;

/// <summary>
/// Sends pages to one host over one connection, on a thread of its own, in the order in which they were given. Reads them by
/// pread, so that a hole in the RAM file stays one. Given work by one thread, the migration's.
/// </summary>
internal sealed unsafe class BulkSender : IDisposable
{
    /// <summary>Pages in one frame at most (1 MiB).</summary>
    public const int PagesPerFrame = 256;

    // Deep enough to keep the link busy while the migration's thread looks for more, shallow enough to stop quickly.
    private const int QueueLength = 64;

    private readonly BlockingCollection<Work> _queue = new(QueueLength);
    private readonly GuestRam _ram;
    private readonly FrameConnection _connection;
    private readonly bool _reduce;
    private readonly RateLimiter? _limiter;
    private readonly byte[] _buffer = GC.AllocateArray<byte>(PagesPerFrame * PageIndex.PageSize, pinned: true);
    private readonly byte[] _compressed = new byte[PageCompression.BufferBytes];
    private readonly ManualResetEventSlim _barrierDone = new(initialState: true);
    private readonly Thread _thread;
    private volatile Exception? _failure;
    private uint _sequence;
    private long _pagesSent;
    private long _zeroPages;
    private readonly List<PageRange> _zeroRanges = [];

    /// <param name="name">Of the host, for the thread and for messages.</param>
    /// <param name="ram">The guest's RAM; not owned.</param>
    /// <param name="connection">A bulk connection; owned.</param>
    /// <param name="reduce">Send pages of zeros as ranges, and others compressed where that pays. Off for the baseline that sends everything.</param>
    /// <param name="limiter">Shared by all senders; null for none.</param>
    public BulkSender(string name, GuestRam ram, FrameConnection connection, bool reduce, RateLimiter? limiter)
    {
        Name = name;
        _ram = ram;
        _connection = connection;
        _reduce = reduce;
        _limiter = limiter;
        _thread = new Thread(Run) { IsBackground = true, Name = $"send {name}" };
        _thread.Start();
    }

    private enum WorkKind
    {
        Pages,
        Discard,
        Barrier,
    }

    public string Name { get; }

    /// <summary>Pages whose content was sent, ranges of zeros not counted.</summary>
    public long PagesSent => Interlocked.Read(ref _pagesSent);

    public long ZeroPages => Interlocked.Read(ref _zeroPages);

    /// <summary>Bytes given to the connection, frames and all, before TLS.</summary>
    public long BytesSent => _connection.BytesSent;

    /// <summary>
    /// What was sent as a range of zeros since the last call: the host holds nothing there. After a barrier only, when the
    /// sender's thread has nothing to do.
    /// </summary>
    public IReadOnlyList<PageRange> TakeZeroRanges()
    {
        PageRange[] ranges = [.. _zeroRanges];
        _zeroRanges.Clear();
        return ranges;
    }

    /// <summary>Sends the pages' content as it is when their turn comes.</summary>
    public void Pages(PageRange range) => Add(new Work(WorkKind.Pages, range));

    public void Discard(PageRange range) => Add(new Work(WorkKind.Discard, range));

    /// <summary>Asks for a word when all given so far is applied at the other end; <see cref="WaitBarrier"/> waits for it.</summary>
    public void Barrier()
    {
        _barrierDone.Reset();
        Add(new Work(WorkKind.Barrier, default));
    }

    /// <exception cref="MigrationException">The connection broke.</exception>
    public void WaitBarrier(CancellationToken cancel)
    {
        _barrierDone.Wait(cancel);
        ThrowIfFailed();
    }

    public void Dispose()
    {
        _queue.CompleteAdding();
        if (_failure is not null || !_thread.Join(TimeSpan.FromSeconds(2)))
        {
            // Stuck in a send to a host that doesn't answer: closing the connection ends it.
            _connection.Abort();
            _thread.Join();
        }

        _connection.Dispose();
        _queue.Dispose();
        _barrierDone.Dispose();
    }

    private void Add(Work work)
    {
        ThrowIfFailed();
        while (!_queue.TryAdd(work, millisecondsTimeout: 100))
        {
            ThrowIfFailed();
        }
    }

    private void ThrowIfFailed()
    {
        if (_failure is { } failure)
        {
            throw new MigrationException($"The connection to {Name} broke: {failure.Message}", failure);
        }
    }

    private void Run()
    {
        try
        {
            foreach (var work in _queue.GetConsumingEnumerable())
            {
                switch (work.Kind)
                {
                    case WorkKind.Pages:
                        SendPages(work.Range);
                        break;
                    case WorkKind.Discard:
                        _connection.Send(FrameHeader.Of(FrameType.Discard, work.Range), default);
                        break;
                    default:
                        RoundTrip();
                        _barrierDone.Set();
                        break;
                }
            }

            _connection.Flush();
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            _failure = e;
            _barrierDone.Set();
        }
    }

    /// <summary>Waits for the word that the host has applied all frames so far.</summary>
    private void RoundTrip()
    {
        _connection.Send(FrameHeader.Of(FrameType.Barrier, ++_sequence));
        _connection.Flush();
        if (!_connection.Read(out var answer, _buffer))
        {
            throw new IOException("the host closed it");
        }

        if (answer.Type != FrameType.BarrierDone || answer.Sequence != _sequence)
        {
            throw new ProtocolException($"{answer.Type} {answer.Sequence} came where BarrierDone {_sequence} was due");
        }
    }

    private void SendPages(PageRange range)
    {
        while (range.Count > 0)
        {
            var block = _ram.BlockOf(range.First);
            long count = Math.Min(Math.Min(range.Count, PagesPerFrame), block.EndPage - range.First);
            fixed (byte* buffer = _buffer)
            {
                SparseFile.Read(block.File, buffer, (nuint)(count << PageIndex.PageShift), (range.First - block.FirstPage) << PageIndex.PageShift);
            }

            SendBuffer(new PageRange(range.First, count));
            range = new PageRange(range.First + count, range.Count - count);
        }
    }

    private void SendBuffer(PageRange range)
    {
        _limiter?.Take(range.Bytes);
        if (!_reduce)
        {
            SendContent(range, 0, (int)range.Count);
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
                _connection.Send(FrameHeader.Of(FrameType.ZeroPages, zeros), default);
                _zeroRanges.Add(zeros);
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
        for (int block = start; _reduce && block < end; block += PageCompression.BlockPages)
        {
            int blockEnd = Math.Min(block + PageCompression.BlockPages, end);
            if (PageCompression.TryCompress(Content(block, blockEnd), _compressed, out int length))
            {
                SendPlain(range, plain, block);
                _connection.Send(
                    FrameHeader.Of(FrameType.CompressedPages, new PageRange(range.First + block, blockEnd - block)),
                    _compressed.AsSpan(0, length));
                plain = blockEnd;
            }
        }

        SendPlain(range, plain, end);
    }

    private void SendPlain(PageRange range, int start, int end)
    {
        if (end > start)
        {
            _connection.Send(FrameHeader.Of(FrameType.Pages, new PageRange(range.First + start, end - start)), Content(start, end));
        }
    }

    private ReadOnlySpan<byte> Content(int start, int end) =>
        _buffer.AsSpan(start << PageIndex.PageShift, (end - start) << PageIndex.PageShift);

    // Vectorised by the library; a page in use differs from zero within its first bytes nearly always.
    private bool IsZero(int page) =>
        !_buffer.AsSpan(page << PageIndex.PageShift, PageIndex.PageSize).ContainsAnyExcept((byte)0);

    private readonly record struct Work(WorkKind Kind, PageRange Range);
}
