using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Migration;

/// <summary>
/// Sends pages to one host over several connections at once, each a <see cref="SendLane"/> with a thread of its own. Given work by one
/// thread, the migration's, which gives no page twice between two barriers: so it does not matter which lane takes what.
/// </summary>
internal sealed class BulkSender : IDisposable
{
    /// <summary>Pages in one piece of work at most (1 MiB).</summary>
    public const int PagesPerFrame = 256;

    // Deep enough to keep the link busy while the migration's thread looks for more, shallow enough to stop quickly.
    private const int QueueLength = 64;

    private readonly SendWork[] _queue = new SendWork[QueueLength];
    private readonly SendLane[] _lanes;

    /// <summary>Guards all below; pulsed at every change.</summary>
    private readonly object _gate = new();
    private int _first;
    private int _count;
    private int _barrier;
    private bool _ended;
    private Exception? _failure;

    /// <param name="name">Of the host, for threads and messages.</param>
    /// <param name="options">What all its lanes share.</param>
    /// <param name="connect">Opens the connection of a lane: at the beginning, and again when it was lost.</param>
    /// <param name="lanes">How many connections.</param>
    public BulkSender(string name, SendOptions options, Func<int, TimeSpan, CancellationToken, FrameConnection> connect, int lanes)
    {
        Name = name;
        _lanes = new SendLane[lanes];
        try
        {
            for (int i = 0; i < lanes; i++)
            {
                int stream = i;
                _lanes[i] = new SendLane(this, options, i, (limit, cancel) => connect(stream, limit, cancel));
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public string Name { get; }

    /// <summary>How long a lost connection is tried again. May change while it is.</summary>
    public TimeSpan Patience
    {
        set
        {
            foreach (var lane in _lanes)
            {
                lane.PatienceMilliseconds = (long)value.TotalMilliseconds;
            }
        }
    }

    /// <summary>Pages whose content was sent, ranges of zeros not counted.</summary>
    public long PagesSent => _lanes.Sum(lane => lane.PagesSent);

    public long ZeroPages => _lanes.Sum(lane => lane.ZeroPages);

    /// <summary>Bytes given to the connections, frames and all, before TLS.</summary>
    public long BytesSent => _lanes.Sum(lane => lane.BytesSent);

    /// <summary>How often a lost connection was replaced.</summary>
    public int Reconnects => _lanes.Sum(lane => lane.Reconnects);

    /// <summary>How many ranges of zeros <see cref="TakeZeroRanges"/> would give, about.</summary>
    public int ZeroRanges
    {
        get
        {
            int count = 0;
            foreach (var lane in _lanes)
            {
                count += lane.ZeroRangeCount;
            }

            return count;
        }
    }

    /// <summary>
    /// What was sent as a range of zeros since the last call: the host holds nothing there. After a barrier only, when no lane
    /// has anything to do.
    /// </summary>
    public IReadOnlyList<PageRange> TakeZeroRanges() => [.. _lanes.SelectMany(lane => lane.TakeZeroRanges())];

    /// <summary>Sends the pages' content as it is when their turn comes.</summary>
    /// <exception cref="MigrationException">A connection broke and did not come back.</exception>
    public void Pages(PageRange range) => Add(new SendWork(SendKind.Pages, range));

    /// <exception cref="MigrationException">A connection broke and did not come back.</exception>
    public void Discard(PageRange range) => Add(new SendWork(SendKind.Discard, range));

    /// <summary>Takes back the pages that no lane has begun with; what was to be discarded stays to be done.</summary>
    public IReadOnlyList<PageRange> Withdraw()
    {
        lock (_gate)
        {
            var pages = new List<PageRange>();
            int kept = 0;
            for (int i = 0; i < _count; i++)
            {
                var work = _queue[(_first + i) % QueueLength];
                if (work.Kind == SendKind.Pages)
                {
                    pages.Add(work.Range);
                }
                else
                {
                    _queue[(_first + kept++) % QueueLength] = work;
                }
            }

            _count = kept;
            Monitor.PulseAll(_gate);
            return pages;
        }
    }

    /// <summary>Asks for a word when all given so far is applied at the other end; <see cref="WaitBarrier"/> waits for it.</summary>
    public void Barrier()
    {
        lock (_gate)
        {
            _barrier++;
            Monitor.PulseAll(_gate);
        }
    }

    /// <exception cref="MigrationException">A connection broke and did not come back.</exception>
    public void WaitBarrier(CancellationToken cancel)
    {
        using var registration = cancel.Register(Pulse);
        lock (_gate)
        {
            while (_count > 0 || _lanes.Any(lane => lane.BarrierDone != _barrier))
            {
                cancel.ThrowIfCancellationRequested();
                ThrowIfFailed();
                Monitor.Wait(_gate);
            }

            ThrowIfFailed();
        }
    }

    public void Dispose()
    {
        lock (_gate)
        {
            _ended = true;
            _count = 0;
            Monitor.PulseAll(_gate);
        }

        foreach (var lane in _lanes)
        {
            lane?.Dispose();
        }
    }

    /// <summary>For a lane: its next work; blocks while there is none.</summary>
    /// <param name="barrier">The last barrier that the lane has passed.</param>
    internal SendWork Take(int barrier)
    {
        lock (_gate)
        {
            while (true)
            {
                if (_ended || _failure is not null)
                {
                    return new SendWork(SendKind.End, default);
                }

                if (_count > 0)
                {
                    var work = _queue[_first];
                    _first = (_first + 1) % QueueLength;
                    if (_count-- == QueueLength)
                    {
                        Monitor.PulseAll(_gate);
                    }

                    return work;
                }

                if (barrier != _barrier)
                {
                    // Nothing is added between a barrier and its end, so the queue stays empty until then.
                    return new SendWork(SendKind.Barrier, new PageRange(_barrier, 0));
                }

                Monitor.Wait(_gate);
            }
        }
    }

    /// <summary>For a lane: something has changed that others may wait for.</summary>
    internal void Pulse()
    {
        lock (_gate)
        {
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Of a lane, or of whatever else the migration needs: it can't go on. Whoever waits here gets the first of them.</summary>
    internal void Fail(Exception failure)
    {
        lock (_gate)
        {
            _failure ??= failure;
            Monitor.PulseAll(_gate);
        }
    }

    private void Add(SendWork work)
    {
        lock (_gate)
        {
            while (_count == QueueLength)
            {
                ThrowIfFailed();
                Monitor.Wait(_gate);
            }

            ThrowIfFailed();
            _queue[(_first + _count) % QueueLength] = work;
            if (_count++ == 0)
            {
                Monitor.PulseAll(_gate);
            }
            else
            {
                Monitor.Pulse(_gate);
            }
        }
    }

    private void ThrowIfFailed()
    {
        if (_failure is { } failure)
        {
            throw failure is MigrationException
                ? new MigrationException(failure.Message, failure)
                : new MigrationException($"The connection to {Name} broke: {failure.Message}", failure);
        }
    }
}

internal enum SendKind
{
    Pages,
    Discard,

    /// <summary>The number of the barrier is the range's first page.</summary>
    Barrier,
    End,
}

/// <summary>What a lane is to do next.</summary>
internal readonly record struct SendWork(SendKind Kind, PageRange Range);

/// <summary>What all lanes of a migration share.</summary>
/// <param name="Ram">The guest's RAM; not owned.</param>
/// <param name="Reduce">Send pages of zeros as ranges, and others compressed where that pays. Off for the baseline that sends everything.</param>
/// <param name="Limiter">Shared by all senders; null for none.</param>
/// <param name="ConfirmBytes">From one confirmation that a lane asks for to the next. A cut repeats twice as much at most.</param>
internal sealed record SendOptions(GuestRam Ram, bool Reduce, RateLimiter? Limiter, long ConfirmBytes = 64 << 20);
