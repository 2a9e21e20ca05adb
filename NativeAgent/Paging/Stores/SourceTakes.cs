using System.Net;
using System.Text;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Has sub-hosts take from the source what is not to be here: the content goes there straight. A page on this way is Busy, and these
/// steps make it right whatever dies in between:
/// <list type="number">
/// <item>What the sub-host has of it is noted to count for nothing (<see cref="StaleCopies"/>); then it is told to take it.</item>
/// <item>It has taken it and says so: the note goes. From here on its copy counts before the source's.</item>
/// <item>The source is told to forget it and says that it has: the page is Remote, at the sub-host.</item>
/// </list>
/// Without an answer the page is Remote at the source again, and the note stays: the sub-host may have it, or be about to. Its bulk
/// connection is interrupted before, since a new one begins only when it is done with what it was told to take.
/// <para>The drain's thread only, but for <see cref="Abandon"/> and <see cref="Taken"/>.</para>
/// </summary>
internal sealed class SourceTakes : IDisposable
{
    /// <summary>Runs under way at once. Small ones: a fault on a page that is under way waits for its run.</summary>
    private const int Window = 4;

    private const int RunPages = 64;

    private const int RetryMilliseconds = 1000;

    private static readonly TimeSpan s_attempt = TimeSpan.FromSeconds(1);

    /// <summary>The sub-host waits for the source for less.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);

    private readonly PagingCore _core;
    private readonly RemoteStore _source;
    private readonly CancellationToken _stop;
    private readonly byte[] _sourceAt;
    private readonly FrameConnection?[] _connections = new FrameConnection?[PageEntry.MaxSubs];
    private readonly long[] _notBefore = new long[PageEntry.MaxSubs];
    private readonly Queue<Take> _asked = new(Window);
    private readonly byte[] _presence = new byte[RunPages];
    private uint _sequence;
    private long _taken;

    /// <param name="core">The pager's.</param>
    /// <param name="source">The store that is emptied.</param>
    /// <param name="stop">Ends what waits.</param>
    public SourceTakes(PagingCore core, RemoteStore source, CancellationToken stop)
    {
        _core = core;
        _source = source;
        _stop = stop;
        _sourceAt = Encoding.UTF8.GetBytes(new IPEndPoint(source.Options.Address, source.Options.Port).ToString());
    }

    /// <summary>Pages that went this way.</summary>
    public long Taken => Interlocked.Read(ref _taken);

    public bool Any => _asked.Count > 0;

    /// <summary>An answer has to be had before more can be asked for.</summary>
    public bool IsFull => _asked.Count == Window;

    private PageEntry Left => new(PageState.Remote, _source.Index);

    private PageEntry Held => Left.With(PageState.Busy);

    /// <summary>
    /// Tells a sub-host to take the pages from <paramref name="first"/> on that lie together at the source, but for those of the guest's
    /// kernel. Returns the page after them; <paramref name="first"/> when no sub-host can.
    /// </summary>
    public long Ask(long first)
    {
        int store = _core.Copies.Emptiest(not: -1, first);
        if (store < 0 || !IsConnected(store))
        {
            return first;
        }

        PageRange range;
        // Nobody tidies notes up meanwhile.
        lock (_core.EvictionGate)
        {
            long most = Math.Min(RunPages, _core.Table.PageCount - first);
            if (!_core.Copies.TryExpect(store, most))
            {
                return first;
            }

            range = Hold(first, most, store);
            _core.Copies.Unexpect(store, most - range.Count);
            if (range.Count == 0)
            {
                // A fault was faster.
                return first + 1;
            }

            if (!_core.Copies.Stale.TryNote(store, range))
            {
                _core.Report("Which copies of pages count can't be noted in the worker's directory. Make room on its file system.");
                GiveBack(store, range);
                return first;
            }
        }

        _asked.Enqueue(new(store, range, ++_sequence));
        FailurePoint.Reach("main.take.asking");
        try
        {
            var connection = _connections[store]!;
            connection.Send(FrameHeader.Of(FrameType.Take, range, _sequence), _sourceAt);
            connection.Flush();
        }
        catch (IOException e)
        {
            Fail(store, e);
        }

        FailurePoint.Reach("main.take.asked");
        return range.End;
    }

    /// <summary>
    /// Waits for the oldest answer. Those of its pages that the sub-host has, and whose copy there counts now, are added to
    /// <paramref name="taken"/>: <see cref="Settle"/> them once the source has forgotten them. Those that the source did not have are
    /// added to <paramref name="missing"/>.
    /// </summary>
    public void TakeAnswer(List<TakenRun> taken, List<long> missing)
    {
        var take = _asked.Peek();
        try
        {
            ReadAnswer(_connections[take.Store]!, take);
            if (_core.FateOf(take.Store) == StoreFate.Gone)
            {
                throw new IOException("The sub-host was given up.");
            }
        }
        catch (IOException e)
        {
            Fail(take.Store, e);
            return;
        }

        _asked.Dequeue();
        FailurePoint.Reach("main.take.stored");
        int count = (int)take.Range.Count;
        for (int i = 0; i < count;)
        {
            int end = i + 1;
            while (end < count && _presence[end] == _presence[i])
            {
                end++;
            }

            var run = new PageRange(take.Range.First + i, end - i);
            if (_presence[i] == 1 && _core.Copies.Stale.TryClear(take.Store, run))
            {
                taken.Add(new(take.Store, run));
            }
            else
            {
                GiveBack(take.Store, run);
                for (long page = run.First; page < run.End && _presence[i] == 0; page++)
                {
                    missing.Add(page);
                }
            }

            i = end;
        }

        FailurePoint.Reach("main.take.counted");
    }

    /// <summary>The source has forgotten pages that a sub-host has taken: they are there from now on.</summary>
    public void Settle(TakenRun run)
    {
        // One that was given up in this very moment: the pages are lost, and whoever touches one finds that out.
        var there = new PageEntry(PageState.Remote, run.Store);
        for (long page = run.Pages.First; page < run.Pages.End; page++)
        {
            _core.Table.AddAwayWhileBusy(-1);
            _core.Table.Move(page, Held, there);
        }

        _core.Copies.Unexpect(run.Store, run.Pages.Count);
        Interlocked.Add(ref _taken, run.Pages.Count);
        Wake(run.Pages);
    }

    /// <summary>A sub-host was given up: its answers are not waited for. Any thread.</summary>
    public void Abandon(int store) => Volatile.Read(ref _connections[store])?.Abort();

    /// <summary>After the drain's thread has ended.</summary>
    public void Dispose()
    {
        foreach (var connection in _connections)
        {
            connection?.Dispose();
        }
    }

    /// <summary>As many pages from <paramref name="first"/> on as are at the source, and can go to this sub-host.</summary>
    private PageRange Hold(long first, long most, int store)
    {
        long end = first;
        while (end < first + most && !_core.Heat.IsPinned(end) && !_core.Copies.Stale.Has(store, end) && _core.Table.TryMove(end, Left, Held))
        {
            _core.Table.AddAwayWhileBusy(1);
            end++;
        }

        return new(first, end - first);
    }

    private bool IsConnected(int store)
    {
        if (_connections[store] is not null)
        {
            return true;
        }

        if (Environment.TickCount64 < _notBefore[store])
        {
            return false;
        }

        var options = _core.Stores[store].Options;
        try
        {
            var connection = options.Connect(ConnectionPurpose.Take, s_attempt, out _, _stop);
            Volatile.Write(ref _connections[store], connection);
            return true;
        }
        catch (IOException)
        {
            // Its pages come by way of this host until it can be had.
            _notBefore[store] = Environment.TickCount64 + RetryMilliseconds;
            return false;
        }
    }

    private void ReadAnswer(FrameConnection connection, in Take take)
    {
        using var patience = new Timer(static c => ((FrameConnection)c!).Abort(), connection, s_patience, Timeout.InfiniteTimeSpan);
        if (!connection.Read(out var answer, _presence))
        {
            throw new IOException("The sub-host's worker closed the connection.");
        }

        if (answer.Type != FrameType.TakeDone || answer.Range != take.Range || answer.Sequence != take.Sequence
            || _presence.AsSpan(0, (int)take.Range.Count).IndexOfAnyExcept((byte)0, (byte)1) >= 0)
        {
            throw connection.Refuse($"The answer for {answer.Range} is not what was asked for.");
        }
    }

    /// <summary>What a sub-host was told to take and has not said to have is the source's again.</summary>
    private void Fail(int store, IOException error)
    {
        // First: nothing may be put there now that what it still takes could come to lie on.
        _core.Stores[store].Bulk.Interrupt();
        _core.Stores[store].Bulk.NoteFull(error.Message);
        var connection = _connections[store];
        Volatile.Write(ref _connections[store], null);
        connection?.Dispose();
        _notBefore[store] = Environment.TickCount64 + RetryMilliseconds;
        for (int i = _asked.Count; i > 0; i--)
        {
            var take = _asked.Dequeue();
            if (take.Store == store)
            {
                GiveBack(store, take.Range);
            }
            else
            {
                _asked.Enqueue(take);
            }
        }

        if (!_stop.IsCancellationRequested && _core.FateOf(store) != StoreFate.Gone)
        {
            _core.Report($"Sub-host {_core.Stores[store].Options.Host} could not take pages from the source, which come by way of this host meanwhile: {error.Message}");
        }

        _core.WakeCopies();
    }

    private void GiveBack(int store, PageRange range)
    {
        for (long page = range.First; page < range.End; page++)
        {
            _core.Table.AddAwayWhileBusy(-1);
            _core.Table.Move(page, Held, Left);
        }

        _core.Copies.Unexpect(store, range.Count);
        Wake(range);
    }

    private void Wake(PageRange range)
    {
        for (long at = range.First; at < range.End;)
        {
            long end = Math.Min(range.End, _core.Pages.Ram.BlockOf(at).EndPage);
            _core.Pages.Wake(new(at, end - at));
            at = end;
        }

        _core.WakeFaults();
    }

    private readonly record struct Take(int Store, PageRange Range, uint Sequence);
}

/// <summary>Pages that a sub-host has taken from the source.</summary>
internal readonly record struct TakenRun(int Store, PageRange Pages);
