using System.Diagnostics;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using FCtrans.Contracts;

namespace FCtrans.Agent.Migration;

/// <summary>
/// Brings the VM's used memory to its hosts, round by round. One bit a page, <c>sent</c>, says: that page's host has its
/// content as of the last arming of the dirty tracking.
/// <para>
/// Each round harvests the dirty pages (which clears <c>sent</c>), and only then scans for unused pages, and sends every used
/// page that is not <c>sent</c>. Why no used page can be missed, whatever the scan of a running guest misread: the last round
/// runs while the VM stands still, so its harvest and its scan are exact, and after it every page is <c>sent</c>, or unused.
/// A page that was wrongly taken for unused before is simply not <c>sent</c> yet. A page that was freed after it had been sent
/// is discarded at its host, and loses its bit, so that it is sent again if the guest takes it again.
/// </para>
/// Used by one thread.
/// </summary>
internal sealed class MigrationRounds : IDisposable
{
    /// <summary>Ranges noted for the main host before they are told, those of zeros among them: some MiB. A fragmented guest has a million.</summary>
    private const int MostLocated = 64 << 10;

    private readonly DirtyTracker _dirtyTracker;
    private readonly IUnusedPages _unusedPages;
    private readonly Placement _placement;
    private readonly BulkSender[] _senders;
    private readonly ControlChannel _control;
    private readonly MigrationProgress _progress;
    private readonly int _mostLocated;
    private readonly PageBitmap _sent;
    private readonly PageBitmap _dirty;
    private readonly PageBitmap _unused;
    private PageBitmap? _dirtyAndSent;
    /// <summary>The first look may come long after the one that someone else had before the tracker was armed.</summary>
    private bool _looked;

    /// <summary>What the look after the last harvest has seen; null: there was none yet.</summary>
    private UnusedFigures? _seen;
    private readonly long _pageCount;
    private RoundUnderWay? _underWay;

    /// <summary>What the main host is to be told of at the next <see cref="Locate"/>; few, however the guest's memory lies.</summary>
    private readonly List<(PageRange Range, byte Place)> _located = [];
    private long _lastHarvest = Stopwatch.GetTimestamp();

    /// <param name="pageCount">Pages of the VM.</param>
    /// <param name="dirtyTracker">Armed; not owned.</param>
    /// <param name="unusedPages">Not owned.</param>
    /// <param name="placement">Not owned.</param>
    /// <param name="senders">By place: index 0 is the main host's. Not owned.</param>
    /// <param name="control">To the main host; not owned.</param>
    /// <param name="progress">Where the figures go.</param>
    /// <param name="mostLocated">Ranges noted for the main host before they are told.</param>
    public MigrationRounds(
        long pageCount,
        DirtyTracker dirtyTracker,
        IUnusedPages unusedPages,
        Placement placement,
        BulkSender[] senders,
        ControlChannel control,
        MigrationProgress progress,
        int mostLocated = MostLocated)
    {
        _mostLocated = mostLocated;
        _pageCount = pageCount;
        _dirtyTracker = dirtyTracker;
        _unusedPages = unusedPages;
        _placement = placement;
        _senders = senders;
        _control = control;
        _progress = progress;
        _sent = new PageBitmap(pageCount);
        _dirty = new PageBitmap(pageCount);
        _unused = new PageBitmap(pageCount);
    }

    /// <summary>Rounds done.</summary>
    public int Round { get; private set; }

    /// <summary>The last round did not send all that it was to.</summary>
    public bool EndedEarly { get; private set; }

    /// <summary>
    /// Pages per second that all senders together moved in the last round that shows it: one of a few pages, over in a moment, shows the way
    /// there and back and no more. 0 before the first.
    /// </summary>
    public double PagesPerSecond { get; private set; }

    /// <summary>Harvests what the guest wrote since the last harvest. The next round begins with it.</summary>
    /// <returns>How many pages are to be sent again, at most: some of them may be unused.</returns>
    public long Harvest()
    {
        FailurePoint.Reach("source.harvest");
        long dirty = _dirtyTracker.Harvest(_dirty);
        _seen = null;
        double seconds = Stopwatch.GetElapsedTime(_lastHarvest).TotalSeconds;
        _lastHarvest = Stopwatch.GetTimestamp();
        _progress.Update(s =>
        {
            s.DirtyPagesLastRound = (ulong)dirty;
            s.DirtyPagesPerSecond = seconds > 0 ? dirty / seconds : 0;
        });
        return dirty;
    }

    /// <summary>Scans, sends all that is used and not sent, and waits until it has arrived. To be called after a harvest.</summary>
    /// <param name="enough">Asked now and then: true ends the round before all is sent; null: never.</param>
    /// <param name="cancel">Gives up.</param>
    /// <exception cref="MigrationException">A connection broke, or no host has room.</exception>
    public void Send(CancellationToken cancel, Func<bool>? enough = null)
    {
        long began = Stopwatch.GetTimestamp();
        long bytesBefore = BytesSent();
        long pagesBefore = PagesSent();
        var figures = Look();
        long looked = Stopwatch.GetTimestamp();
        FailurePoint.Reach("source.scanned");
        long dirtyPages = _dirty.Count();
        ForgetUnused(cancel);
        EndedEarly = false;
        _progress.Update(s =>
        {
            s.Round = Round + 1;
            s.UsedPages = (ulong)figures.Used;
        });
        Volatile.Write(ref _underWay, new RoundUnderWay(CountToSendNow(), MovedPages(), bytesBefore, began));
        SendUsed(cancel, enough);
        _dirty.Clear();
        Barriers(cancel);

        Locate(cancel);
        Volatile.Write(ref _underWay, null);
        Round++;
        double seconds = Stopwatch.GetElapsedTime(began).TotalSeconds;
        long pages = PagesSent() - pagesBefore;
        Measure(pages, Stopwatch.GetElapsedTime(looked).TotalSeconds);
        FailurePoint.Reach("source.round-sent");
        _progress.Update(s =>
        {
            s.Round = Round;
            s.NeverTouchedPages = (ulong)figures.NeverTouched;
            s.FreePages = (ulong)(figures.Free + figures.Ballooned);
            s.UsedPages = (ulong)figures.Used;
            s.UnusedPagesSkipped = (ulong)_unused.Count();
            s.ZeroPages = (ulong)_senders.Sum(sender => sender.ZeroPages);
            s.RemainingPages = 0;
            s.UnusedMethod = figures.Method;
            s.UnusedReason = figures.Reason;
            s.BytesPerSecond = (BytesSent() - bytesBefore) / Math.Max(seconds, 1e-6);
            s.Rounds.Add(new RoundStatus
            {
                Round = Round,
                Seconds = seconds,
                PagesSent = (ulong)pages,
                BytesSent = (ulong)(BytesSent() - bytesBefore),
                DirtyPages = (ulong)dirtyPages,
                UnusedPages = (ulong)_unused.Count(),
            });
        });
    }

    private void Measure(long pages, double seconds)
    {
        const double tellingSeconds = 0.1;
        double pagesPerSecond = pages / Math.Max(seconds, 1e-6);
        if (seconds > tellingSeconds || pagesPerSecond > PagesPerSecond)
        {
            PagesPerSecond = pagesPerSecond;
        }
    }

    /// <summary>
    /// Looks at what is unused, once after a harvest, at the cost of what was written: whenever <see cref="_dirty"/> is cleared, a look came
    /// between the harvest and that, so it has all that was written since the harvest before the last look.
    /// </summary>
    private UnusedFigures Look()
    {
        _seen ??= _unusedPages.Refresh(_unused, _looked ? _dirty : null);
        _looked = true;
        return _seen;
    }

    /// <summary>Looks at what is unused, and counts what the next round would send. To be called after a harvest.</summary>
    public long CountToSend()
    {
        Look();
        return CountToSendNow();
    }

    /// <summary>Of a round that is under way: what is left of it, and how fast it goes. Any thread.</summary>
    public void AddLive(MigrationStatus status)
    {
        if (Volatile.Read(ref _underWay) is not { } round)
        {
            return;
        }

        status.RemainingPages = (ulong)Math.Max(0, round.PagesToSend - (MovedPages() - round.PagesBefore));
        status.BytesPerSecond = (BytesSent() - round.BytesBefore) / Math.Max(Stopwatch.GetElapsedTime(round.BeganAt).TotalSeconds, 1e-6);
    }

    private long CountToSendNow()
    {
        long count = 0;
        for (long word = 0; word < _unused.WordCount; word++)
        {
            count += System.Numerics.BitOperations.PopCount(ToSend(word));
        }

        return count;
    }

    /// <summary>
    /// After a harvest: what the guest has written leaves its hosts again, and counts as not sent. While the VM runs, so that little is
    /// left to be taken back when it stands still for <see cref="Leave"/>.
    /// </summary>
    public void TakeBackDirty(CancellationToken cancel)
    {
        _dirtyAndSent ??= new PageBitmap(_pageCount);
        _dirtyAndSent.CopyFrom(_dirty);
        for (long from = 0; _dirtyAndSent.NextRun(from, long.MaxValue, out var run); from = run.End)
        {
            TakeBack(run, cancel);
        }

        // Each look is told of all that was written since the one before.
        Look();
        _dirty.Clear();
        Barriers(cancel);
        Locate(cancel);
    }

    /// <summary>
    /// With the VM stopped, after its harvest: all that is used and not where it belongs stays here. Afterwards no other host has any
    /// copy of such a page, and the main host knows that they are at the source.
    /// </summary>
    /// <param name="sourceIndex">What the main host calls the source among the stores.</param>
    /// <param name="cancel">Gives up.</param>
    /// <returns>The pages; the caller's.</returns>
    public PageBitmap Leave(int sourceIndex, CancellationToken cancel)
    {
        var figures = Look();
        ForgetUnused(cancel);
        var left = new PageBitmap(_pageCount);
        for (long word = 0; word < _unused.WordCount; word++)
        {
            left.Words(word, 1)[0] = ToSend(word);
        }

        // Also where a round ended early: a page may have an old copy elsewhere that is not called sent any more.
        for (long from = 0; left.NextRun(from, long.MaxValue, out var run); from = run.End)
        {
            TakeBack(run, cancel);
        }

        _dirty.Clear();
        Barriers(cancel);
        Locate(cancel);
        for (long from = 0; left.NextRun(from, long.MaxValue, out var run); from = run.End)
        {
            _control.SendLocated(run, sourceIndex, cancel);
        }

        _control.Barrier(cancel);
        long count = left.Count();
        _progress.Update(s =>
        {
            s.NeverTouchedPages = (ulong)figures.NeverTouched;
            s.FreePages = (ulong)(figures.Free + figures.Ballooned);
            s.UsedPages = (ulong)figures.Used;
            s.UnusedPagesSkipped = (ulong)_unused.Count();
            s.UnusedMethod = figures.Method;
            s.UnusedReason = figures.Reason;
            s.RemainingPages = (ulong)count;
            s.LeftPagesAtSwitchOver = (ulong)count;
        });
        return left;
    }

    public void Dispose()
    {
        _sent.Dispose();
        _dirty.Dispose();
        _unused.Dispose();
        _dirtyAndSent?.Dispose();
    }

    private long BytesSent() => _senders.Sum(sender => sender.BytesSent);

    private long PagesSent() => _senders.Sum(sender => sender.PagesSent);

    private long MovedPages() => _senders.Sum(sender => sender.PagesSent + sender.ZeroPages);

    /// <summary>What the guest freed after it had been sent leaves its host again.</summary>
    private void ForgetUnused(CancellationToken cancel)
    {
        for (long from = 0; _unused.NextRun(from, long.MaxValue, out var run); from = run.End)
        {
            TakeBack(run, cancel);
        }
    }

    /// <summary>Wherever these pages were sent, they leave.</summary>
    private void TakeBack(PageRange run, CancellationToken cancel)
    {
        long page = run.First;
        while (page < run.End)
        {
            byte place = _placement[page];
            long end = page + 1;
            while (end < run.End && _placement[end] == place)
            {
                end++;
            }

            if (place != Placement.None)
            {
                var gone = new PageRange(page, end - page);
                _sent.Fill(gone, false);
                for (long p = page; p < end; p++)
                {
                    _placement.Forget(p);
                }

                SenderOf(place).Discard(gone);
                if (place != Placement.Main)
                {
                    Note(gone, Placement.None, cancel);
                }
            }

            page = end;
        }
    }

    /// <summary>Of 64 pages: used, and not sent or dirty.</summary>
    private ulong ToSend(long word) => ~_unused.Word(word) & (~_sent.Word(word) | _dirty.Word(word)) & ValidBits(word);

    private void Barriers(CancellationToken cancel)
    {
        foreach (var sender in _senders)
        {
            sender.Barrier();
        }

        foreach (var sender in _senders)
        {
            sender.WaitBarrier(cancel);
        }
    }

    private void SendUsed(CancellationToken cancel, Func<bool>? enough)
    {
        for (long word = 0; word < _unused.WordCount; word++)
        {
            ulong pages = ToSend(word);
            if (pages == 0)
            {
                continue;
            }

            if (enough is not null && enough())
            {
                EndEarly(word << 6, cancel);
                break;
            }

            cancel.ThrowIfCancellationRequested();
            for (; pages != 0; pages &= pages - 1)
            {
                SendPage((word << 6) + System.Numerics.BitOperations.TrailingZeroCount(pages), cancel);
            }
        }

        FlushRun(cancel);
    }

    /// <summary>Nothing more is sent in this round: what it was to send, and what is not under way yet, counts as not sent.</summary>
    private void EndEarly(long firstPage, CancellationToken cancel)
    {
        EndedEarly = true;
        for (long from = firstPage; _dirty.NextRun(from, long.MaxValue, out var run); from = run.End)
        {
            _sent.Fill(run, false);
        }

        FlushRun(cancel);
        foreach (var sender in _senders)
        {
            foreach (var range in sender.Withdraw())
            {
                _sent.Fill(range, false);
            }
        }
    }

    private PageRange _run;
    private byte _runPlace;

    private void SendPage(long page, CancellationToken cancel)
    {
        byte place = _placement.Assign(page, _sent[page] && _dirty[page], out byte before);
        if (before != place && before != Placement.None)
        {
            // Its old host forgets it. The main host learns the new place from the page itself, which comes to it.
            SenderOf(before).Discard(new PageRange(page, 1));
        }

        _sent[page] = true;
        if (page == _run.End && place == _runPlace && _run.Count < BulkSender.PagesPerFrame)
        {
            _run = _run with { Count = _run.Count + 1 };
            return;
        }

        FlushRun(cancel);
        _run = new PageRange(page, 1);
        _runPlace = place;
    }

    private void FlushRun(CancellationToken cancel)
    {
        if (_run.Count == 0)
        {
            return;
        }

        var run = _run;
        _run = default;
        SenderOf(_runPlace).Pages(run);
        if (_runPlace != Placement.Main)
        {
            Note(run, _runPlace, cancel);
        }
    }

    /// <summary>Notes a range for <see cref="Locate"/>, which comes at once when there are many: what was given to the senders has to arrive first.</summary>
    private void Note(PageRange range, byte place, CancellationToken cancel)
    {
        _located.Add((range, place));
        int zeros = 0;
        foreach (var sender in _senders)
        {
            zeros += sender.ZeroRanges;
        }

        if (_located.Count + zeros >= _mostLocated)
        {
            Barriers(cancel);
            Locate(cancel);
        }
    }

    /// <summary>
    /// Tells the main host which pages lie elsewhere, or nowhere, since this round. After the barriers, so that what it is told
    /// is true; it applies the ranges in this order.
    /// </summary>
    private void Locate(CancellationToken cancel)
    {
        foreach (var (range, place) in _located)
        {
            _control.SendLocated(range, place == Placement.None ? null : place - Placement.FirstSub, cancel);
        }

        _located.Clear();
        foreach (var sender in _senders)
        {
            foreach (var range in sender.TakeZeroRanges())
            {
                if (sender != _senders[0])
                {
                    // Nobody holds a page of zeros: it is one at its first touch. The main host has seen its own already.
                    _control.SendLocated(range, null, cancel);
                }
            }
        }

        _control.Barrier(cancel);
    }

    private BulkSender SenderOf(byte place) => _senders[place - Placement.Main];

    private ulong ValidBits(long word)
    {
        long left = _pageCount - (word << 6);
        return left >= 64 ? ulong.MaxValue : (1UL << (int)left) - 1;
    }

    private sealed record RoundUnderWay(long PagesToSend, long PagesBefore, long BytesBefore, long BeganAt);
}
