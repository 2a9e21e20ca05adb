using System.Runtime.InteropServices;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Empties the source of what a switch-over left there, by the way, while faults fetch what the guest wants at once: a thread and a
/// connection of its own. Goes through the page table again and again until no page names the source any more:
/// <list type="bullet">
/// <item>Remote: fetched, some runs under way at once, where it is the guest's kernel's or there is room; else a sub-host takes it
/// (<see cref="SourceTakes"/>), and only if none can, it is fetched and another page makes room for it;</item>
/// <item>here (by this or by a fault), but the source still has it: the source gives it up, and when it has said so the page names nobody.
/// Only then may it be evicted or become unused, so that a restarted worker never takes what the source has for newer.</item>
/// </list>
/// A cut loses nothing: what was asked for and did not come is Remote again.
/// </summary>
internal sealed unsafe class SourceDrain : IDisposable
{
    private const int RunPages = 64;
    private const int Window = 4;

    /// <summary>Pages that may be here and at the source before the source gives them up: these can't be evicted yet.</summary>
    private const int PagesPerRelease = 2048;

    private static readonly TimeSpan s_attempt = TimeSpan.FromSeconds(1);

    private readonly Timer _patience;
    private readonly PagingCore _core;
    private readonly RemoteStore _store;
    private readonly Action _emptied;
    private readonly CancellationTokenSource _stop = new();
    private readonly Thread _thread;
    private readonly byte[] _payload = GC.AllocateArray<byte>(RunPages * (PageIndex.PageSize + 1), pinned: true);
    private readonly byte* _pages = (byte*)NativeMemory.AlignedAlloc(RunPages * PageIndex.PageSize, PageIndex.PageSize);
    private readonly Queue<PageRange> _asked = new(Window);
    private readonly List<PageRange> _here = [];
    private readonly SourceTakes _takes;
    private readonly List<TakenRun> _taken = [];
    private readonly List<long> _missing = [];
    private FrameConnection? _connection;
    private uint _sequence;
    private long _fetched;
    private long _lost;
    private bool _moved;
    private long _herePages;
    private long _pinnedLeft;

    /// <param name="core">The pager's.</param>
    /// <param name="store">The source's.</param>
    /// <param name="emptied">Called once, on the drain's thread, when no page is at the source any more.</param>
    public SourceDrain(PagingCore core, RemoteStore store, Action emptied)
    {
        _core = core;
        _store = store;
        _emptied = emptied;
        _takes = new(core, store, _stop.Token);
        _patience = new(_ => Volatile.Read(ref _connection)?.Abort());
        _thread = new Thread(Run) { IsBackground = true, Name = "source drain" };
        _thread.Start();
    }

    /// <summary>Pages that came here by this way.</summary>
    public long Fetched => Interlocked.Read(ref _fetched);

    /// <summary>Pages that sub-hosts took.</summary>
    public long Taken => _takes.Taken;

    /// <inheritdoc cref="SourceTakes.Abandon"/>
    public void Abandon(int store) => _takes.Abandon(store);

    public void Dispose()
    {
        _stop.Cancel();
        Volatile.Read(ref _connection)?.Abort();
        for (int store = 0; store < PageEntry.MaxSubs; store++)
        {
            _takes.Abandon(store);
        }

        _thread.Join();
        _takes.Dispose();
        _patience.Dispose();
        NativeMemory.AlignedFree(_pages);
        _stop.Dispose();
    }

    private bool Stopping => _stop.IsCancellationRequested || _core.Pages.Ended;

    private void Run()
    {
        while (!Stopping)
        {
            try
            {
                Volatile.Write(ref _connection, Connect());
                while (!Stopping && _core.Table.CopiesAt(_store.Index) > _lost)
                {
                    _moved = false;
                    Pass();
                    if (!_moved)
                    {
                        // What is left is in others' hands: a fault that is under way, a page that is being changed.
                        _stop.Token.WaitHandle.WaitOne(1);
                    }
                }

                if (!Stopping)
                {
                    _connection!.Dispose();
                    _emptied();
                    return;
                }
            }
            catch (OperationCanceledException)
            {
            }
            catch (IOException e)
            {
                GiveUpWhatWasAsked();
                if (!Stopping)
                {
                    _core.Report($"Pages that were left at the source can't be fetched now, and are tried again: {e.Message}");
                    _stop.Token.WaitHandle.WaitOne(100);
                }
            }

            _connection?.Dispose();
        }

        GiveUpWhatWasAsked();
    }

    private FrameConnection Connect()
    {
        var options = _store.Options;
        return options.Connect(ConnectionPurpose.Drain, s_attempt, out _, _stop.Token);
    }

    private void Pass()
    {
        long lost = 0;
        CountPinned();
        // What sub-hosts had taken when the last connection ended.
        ReleaseSource();
        for (long page = 0; page < _core.Table.PageCount && !Stopping; page++)
        {
            if (_herePages >= PagesPerRelease)
            {
                ReleaseSource();
            }

            var entry = _core.Table[page];
            if (entry.Sub != _store.Index)
            {
                continue;
            }

            switch (entry.State)
            {
                case PageState.Remote:
                    page = Move(page) - 1;
                    break;

                case PageState.Lost:
                    lost++;
                    break;

                case PageState.ResidentClean:
                    // Written or not, it is this host's from now on.
                    if (_core.TryMakeWritable(page, entry))
                    {
                        NoteHere(page);
                    }

                    break;

                case PageState.Resident:
                    NoteHere(page);
                    break;
            }
        }

        while (_takes.Any && !Stopping)
        {
            TakeAnswerOfSubHost();
        }

        ReleaseSource();
        _lost = lost;
    }

    private void CountPinned()
    {
        _pinnedLeft = 0;
        for (long page = 0; (page = _core.Table.NextWithContent(page)) >= 0; page++)
        {
            _pinnedLeft += _core.Heat.IsPinned(page) && _core.Table[page] == new PageEntry(PageState.Remote, _store.Index) ? 1 : 0;
        }
    }

    /// <summary>Brings the pages at the source from <paramref name="first"/> on that lie together to where they belong. Returns the page after them.</summary>
    private long Move(long first)
    {
        bool pinned = _core.Heat.IsPinned(first);
        // Below what the evictor leaves: what is fetched is not to push out what is here.
        if (pinned || _core.Table.LocalPages + RunPages + _pinnedLeft < _core.LowPages)
        {
            long next = Ask(first);
            _pinnedLeft = Math.Max(0, _pinnedLeft - (pinned ? next - first : 0));
            return next;
        }

        if (_takes.IsFull)
        {
            TakeAnswerOfSubHost();
        }

        long end = _takes.Ask(first);
        return end > first ? end : Ask(first);
    }

    private void TakeAnswerOfSubHost()
    {
        _takes.TakeAnswer(_taken, _missing);
        ReleaseSource();
        foreach (long page in _missing)
        {
            Missing(page, new PageEntry(PageState.Remote, _store.Index));
        }

        _missing.Clear();
    }

    /// <summary>Asks for the pages at the source from <paramref name="first"/> on that lie together. Returns the page after them.</summary>
    private long Ask(long first)
    {
        var remote = new PageEntry(PageState.Remote, _store.Index);
        long limit = Math.Min(first + RunPages, _core.Pages.Ram.BlockOf(first).EndPage);
        while (!_core.HasRoom && !Stopping)
        {
            if (_takes.Any)
            {
                // A guest may wait for one of these.
                TakeAnswerOfSubHost();
            }

            // What the source still has can't be evicted, so first of all it gives up what it can.
            ReleaseSource();
            _core.WakeEvictor();
            _stop.Token.WaitHandle.WaitOne(1);
        }

        long end = first;
        while (end < limit && _core.Table.TryMove(end, remote, remote.With(PageState.Fetching)))
        {
            end++;
        }

        if (end == first)
        {
            // A fault was faster.
            return first + 1;
        }

        var range = new PageRange(first, end - first);
        _asked.Enqueue(range);
        FailurePoint.Reach("main.drain.asking");
        _connection!.Send(FrameHeader.Of(FrameType.Get, range, ++_sequence));
        _connection.Flush();
        if (_asked.Count == Window)
        {
            TakeAnswer();
        }

        return end;
    }

    private void TakeAnswer()
    {
        var range = _asked.Peek();
        if (!Read(out var frame))
        {
            throw new IOException("The source's worker closed the connection.");
        }

        int count = (int)range.Count;
        if (frame.Type != FrameType.GetDone || frame.Range != range || frame.Sequence != _sequence - (uint)(_asked.Count - 1))
        {
            throw _connection!.Refuse($"The answer for {frame.Range} is not what was asked for.");
        }

        int present = 0;
        for (int i = 0; i < count; i++)
        {
            present += _payload[i] == 1 ? 1 : 0;
        }

        if (frame.PayloadBytes != count + (present * PageIndex.PageSize))
        {
            throw _connection!.Refuse($"The answer for {frame.Range} has not the pages that it says.");
        }

        _asked.Dequeue();
        _moved = true;
        _payload.AsSpan(count, present * PageIndex.PageSize).CopyTo(new Span<byte>(_pages, present * PageIndex.PageSize));
        byte* content = _pages;
        for (int i = 0; i < count; i++)
        {
            if (_payload[i] == 1)
            {
                Arrived(range.First + i, content);
                content += PageIndex.PageSize;
            }
            else
            {
                Missing(range.First + i, new PageEntry(PageState.Fetching, _store.Index));
            }
        }

        FailurePoint.Reach("main.drain.fetched");
        _core.WakeFaults();
    }

    /// <summary>A worker that hangs keeps its connection for ever: it has so long to answer.</summary>
    private bool Read(out FrameHeader frame)
    {
        _patience.Change(_store.Options.AnswerTimeout, Timeout.InfiniteTimeSpan);
        try
        {
            return _connection!.Read(out frame, _payload);
        }
        finally
        {
            _patience.Change(Timeout.Infinite, Timeout.Infinite);
        }
    }

    private void Arrived(long page, byte* content)
    {
        var fetching = new PageEntry(PageState.Fetching, _store.Index);
        int errno = _core.Pages.Copy(page, content, protect: false);
        if (errno is 0 or Errno.EEXIST)
        {
            _core.WriteWanted.TryClear(page);
            _core.Table.Move(page, fetching, fetching.With(PageState.Resident));
            // Also whom the copy has woken: he may have missed the page since (QEMU discards what a balloon takes), and found it Fetching.
            _core.Pages.Wake(new(page, 1));
            _core.Waits.Answered(page);
            Interlocked.Increment(ref _fetched);
            _core.PageCame(page);
            NoteHere(page);
            return;
        }

        _core.Table.Move(page, fetching, fetching.With(PageState.Remote));
        if (!_core.Pages.Ended)
        {
            _core.Report("A page that the source had sent could not be put into the VM's memory. Free some memory on this host.");
            _core.Pages.Wake(new(page, 1));
            _stop.Token.WaitHandle.WaitOne(10);
        }
    }

    private void Missing(long page, PageEntry was)
    {
        if (_core.Table.TryMove(page, was, was.With(PageState.Lost)))
        {
            _core.Report($"The source no longer has page {page}: its content is lost, and the guest gets a memory error where it touches it.");
            if (!_core.TryTellLost(new(page, 1)))
            {
                // Who waits for it faults again, which is answered when it could be noted.
                _core.Pages.Wake(new(page, 1));
            }
        }
    }

    private void NoteHere(long page)
    {
        if (_here.Count > 0 && _here[^1].End == page)
        {
            _here[^1] = new PageRange(_here[^1].First, _here[^1].Count + 1);
        }
        else
        {
            _here.Add(new PageRange(page, 1));
        }

        _herePages++;
    }

    /// <summary>The source gives up what is here or at a sub-host; then these pages are like all others.</summary>
    private void ReleaseSource()
    {
        while (_asked.Count > 0)
        {
            TakeAnswer();
        }

        if (_here.Count == 0 && _taken.Count == 0)
        {
            return;
        }

        PageRange[] here = [.. _here];
        _here.Clear();
        _herePages = 0;
        FailurePoint.Reach("main.drain.releasing");
        foreach (var range in here)
        {
            _connection!.Send(FrameHeader.Of(FrameType.Discard, range));
        }

        foreach (var run in _taken)
        {
            _connection!.Send(FrameHeader.Of(FrameType.Discard, run.Pages));
        }

        _connection!.Send(FrameHeader.Of(FrameType.Barrier, ++_sequence));
        _connection.Flush();
        if (!Read(out var answer) || answer.Type != FrameType.BarrierDone || answer.Sequence != _sequence)
        {
            throw new IOException("The source did not confirm that it has given pages up.");
        }

        FailurePoint.Reach("main.drain.released");
        foreach (var run in _taken)
        {
            _takes.Settle(run);
            _moved = true;
        }

        _taken.Clear();
        foreach (var range in here)
        {
            for (long page = range.First; page < range.End; page++)
            {
                Release(page);
            }
        }
    }

    private void Release(long page)
    {
        while (true)
        {
            var entry = _core.Table[page];
            if (entry.Sub != _store.Index)
            {
                return;
            }

            switch (entry.State)
            {
                case PageState.Resident when _core.Table.TryMove(page, entry, new(PageState.Resident)):
                    _moved = true;
                    return;
                case PageState.ResidentClean:
                    _core.TryMakeWritable(page, entry);
                    break;
                case PageState.Busy:
                    // Microseconds.
                    Thread.Yield();
                    break;
                case PageState.Resident:
                    break;
                default:
                    throw new InvalidOperationException($"Page {page} is {entry} after the source gave it up.");
            }
        }
    }

    private void GiveUpWhatWasAsked()
    {
        var fetching = new PageEntry(PageState.Fetching, _store.Index);
        foreach (var range in _asked)
        {
            for (long page = range.First; page < range.End; page++)
            {
                if (_core.Table.TryMove(page, fetching, fetching.With(PageState.Remote)))
                {
                    // Who waits for it faults again, and asks for itself.
                    _core.Pages.Wake(new(page, 1));
                }
            }
        }

        _asked.Clear();
        _here.Clear();
        _herePages = 0;
    }
}
