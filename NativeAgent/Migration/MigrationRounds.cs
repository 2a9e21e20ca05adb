using System.Diagnostics;
using FCtrans.Agent.Diagnostics;
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
    private readonly DirtyTracker _dirtyTracker;
    private readonly IUnusedPages _unusedPages;
    private readonly Placement _placement;
    private readonly BulkSender[] _senders;
    private readonly ControlChannel _control;
    private readonly MigrationProgress _progress;
    private readonly PageBitmap _sent;
    private readonly PageBitmap _dirty;
    private readonly PageBitmap _unused;
    private readonly long _pageCount;
    private readonly List<(PageRange Range, byte Place)> _located = [];
    private long _lastHarvest = Stopwatch.GetTimestamp();

    /// <param name="pageCount">Pages of the VM.</param>
    /// <param name="dirtyTracker">Armed; not owned.</param>
    /// <param name="unusedPages">Not owned.</param>
    /// <param name="placement">Not owned.</param>
    /// <param name="senders">By place: index 0 is the main host's. Not owned.</param>
    /// <param name="control">To the main host; not owned.</param>
    /// <param name="progress">Where the figures go.</param>
    public MigrationRounds(
        long pageCount,
        DirtyTracker dirtyTracker,
        IUnusedPages unusedPages,
        Placement placement,
        BulkSender[] senders,
        ControlChannel control,
        MigrationProgress progress)
    {
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

    /// <summary>Pages per second that all senders together moved in the last round; 0 before the first.</summary>
    public double PagesPerSecond { get; private set; }

    /// <summary>Harvests what the guest wrote since the last harvest. The next round begins with it.</summary>
    /// <returns>How many pages are to be sent again, at most: some of them may be unused.</returns>
    public long Harvest()
    {
        FailurePoint.Reach("source.harvest");
        long dirty = _dirtyTracker.Harvest(_dirty);
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
    /// <exception cref="MigrationException">A connection broke, or no host has room.</exception>
    public void Send(CancellationToken cancel)
    {
        long began = Stopwatch.GetTimestamp();
        long bytesBefore = BytesSent();
        long pagesBefore = PagesSent();
        var figures = _unusedPages.Refresh(_unused);
        FailurePoint.Reach("source.scanned");
        long dirtyPages = _dirty.Count();
        ForgetUnused();
        SendUsed(cancel);
        _dirty.Clear();
        foreach (var sender in _senders)
        {
            sender.Barrier();
        }

        foreach (var sender in _senders)
        {
            sender.WaitBarrier(cancel);
        }

        Locate(cancel);
        Round++;
        double seconds = Stopwatch.GetElapsedTime(began).TotalSeconds;
        long pages = PagesSent() - pagesBefore;
        PagesPerSecond = pages / Math.Max(seconds, 1e-6);
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

    public void Dispose()
    {
        _sent.Dispose();
        _dirty.Dispose();
        _unused.Dispose();
    }

    private long BytesSent() => _senders.Sum(sender => sender.BytesSent);

    private long PagesSent() => _senders.Sum(sender => sender.PagesSent);

    /// <summary>What the guest freed after it had been sent leaves its host again.</summary>
    private void ForgetUnused()
    {
        for (long from = 0; _unused.NextRun(from, long.MaxValue, out var run); from = run.End)
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
                        _located.Add((gone, Placement.None));
                    }
                }

                page = end;
            }
        }
    }

    private void SendUsed(CancellationToken cancel)
    {
        for (long word = 0; word < _unused.WordCount; word++)
        {
            // To be sent: used, and not sent or dirty.
            ulong pages = ~_unused.Word(word) & (~_sent.Word(word) | _dirty.Word(word)) & ValidBits(word);
            if (pages == 0)
            {
                continue;
            }

            cancel.ThrowIfCancellationRequested();
            for (; pages != 0; pages &= pages - 1)
            {
                SendPage((word << 6) + System.Numerics.BitOperations.TrailingZeroCount(pages));
            }
        }

        FlushRun();
    }

    private PageRange _run;
    private byte _runPlace;

    private void SendPage(long page)
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

        FlushRun();
        _run = new PageRange(page, 1);
        _runPlace = place;
    }

    private void FlushRun()
    {
        if (_run.Count == 0)
        {
            return;
        }

        SenderOf(_runPlace).Pages(_run);
        if (_runPlace != Placement.Main)
        {
            _located.Add((_run, _runPlace));
        }

        _run = default;
    }

    /// <summary>
    /// Tells the main host which pages lie elsewhere, or nowhere, since this round. After the barriers, so that what it is told
    /// is true; it applies the ranges in this order.
    /// </summary>
    private void Locate(CancellationToken cancel)
    {
        foreach (var (range, place) in _located)
        {
            _control.SendLocated(range, place == Placement.None ? null : place - Placement.FirstSub);
        }

        _located.Clear();
        foreach (var sender in _senders)
        {
            foreach (var range in sender.TakeZeroRanges())
            {
                if (sender != _senders[0])
                {
                    // Nobody holds a page of zeros: it is one at its first touch. The main host has seen its own already.
                    _control.SendLocated(range, null);
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
}
