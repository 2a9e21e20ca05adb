using System.Runtime.InteropServices;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Makes copies whole in the background: has stores that were away forget what counts for nothing (<see cref="StaleCopies"/>), and copies
/// pages that have fewer copies than are wanted from a store that has them to one more. A thread of its own, and for reading a connection
/// of its own, so that no fault stands behind it; it goes slowly while faults are under way.
/// <para>
/// A copy is made while the page stays Remote: whoever wants the page gets it meanwhile. Why that is right: each step is under the eviction
/// gate, and nothing but an eviction gives a page that is Remote other content, or makes a page that came in Remote again with another. So if
/// the page is what it was when the new store has confirmed its copy, that copy is the page's content. If it is not, what the new store
/// has is stale, as had been noted before it was sent; likewise if this process ends in between.
/// </para>
/// </summary>
internal sealed unsafe class CopyKeeper : IDisposable
{
    private const int BatchPages = 64;
    /// <summary>Pages looked through for those of a batch.</summary>
    private const long WindowPages = 1 << 14;

    private const long ScanPages = 1 << 18;
    private const int IdleMilliseconds = 1000;
    private const int BlockedMilliseconds = 200;

    /// <summary>Between batches of 256 KiB: at most about 250 MB/s, and an eighth of that while the guest waits for pages.</summary>
    private const int PauseMilliseconds = 1;

    private const int BusyPauseMilliseconds = 8;

    private static readonly TimeSpan s_connect = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_answer = TimeSpan.FromSeconds(2);

    /// <summary>A store that could not be read from is left alone for so long, twice as long each time: evictions wait while it is read from.</summary>
    private const int FirstRetryMilliseconds = 200;

    private const int LongestRetryMilliseconds = 10_000;

    private readonly PagingCore _core;
    private readonly PageCopies _copies;
    private readonly long[] _notBefore = new long[PageEntry.MaxSubs];
    private readonly int[] _retry = new int[PageEntry.MaxSubs];
    private readonly Thread _thread;
    private readonly AutoResetEvent _wake = new(false);
    private readonly CancellationTokenSource _stop = new();
    private readonly byte[] _answer = GC.AllocateArray<byte>(BatchPages * (PageIndex.PageSize + 1), pinned: true);
    private readonly byte* _content = (byte*)NativeMemory.AlignedAlloc(BatchPages * PageIndex.PageSize, PageIndex.PageSize);
    private readonly bool[] _fillable = new bool[PageEntry.MaxSubs];
    private readonly PageRange[] _runs = new PageRange[BatchPages];
    private readonly bool[] _present = new bool[BatchPages];
    private int _runCount;
    private FrameConnection? _connection;
    private RemoteStore? _connectedTo;
    private uint _sequence;
    private long _hand;
    private long _made;

    public CopyKeeper(PagingCore core)
    {
        _core = core;
        _copies = core.Copies;
        _thread = new Thread(Run) { IsBackground = true, Name = "copies" };
    }

    /// <summary>Copies made since it began.</summary>
    public long Made => Interlocked.Read(ref _made);

    /// <summary>What the batch under way is of.</summary>
    private ReadOnlySpan<PageRange> Runs => _runs.AsSpan(0, _runCount);

    private bool Stopping => _stop.IsCancellationRequested || _core.Pages.Ended;

    public void Start() => _thread.Start();

    /// <summary>Another number of copies is wanted, or there is another store.</summary>
    public void Wake() => _wake.Set();

    public void Stop()
    {
        _stop.Cancel();
        _wake.Set();
        Volatile.Read(ref _connection)?.Abort();
        if (!_thread.ThreadState.HasFlag(ThreadState.Unstarted))
        {
            _thread.Join();
        }
    }

    /// <summary>After <see cref="Stop"/>.</summary>
    public void Dispose()
    {
        _connection?.Dispose();
        _connection = null;
        NativeMemory.AlignedFree(_content);
        _wake.Dispose();
        _stop.Dispose();
    }

    private void Run()
    {
        while (!Stopping)
        {
            bool progress = Tidy();
            bool isShort = _copies.CountShort() > 0;
            progress |= isShort && !Stopping && Fill();
            int pause = !progress ? IdlePause(isShort)
                : _core.Table.LocalPages > _core.HighPages || _core.Stores.Any(s => s.Demand.Outstanding > 0) ? BusyPauseMilliseconds
                : PauseMilliseconds;
            _wake.WaitOne(pause);
        }
    }

    private int IdlePause(bool isShort)
    {
        bool quiet = true;
        foreach (var store in _core.Stores)
        {
            if (_core.FateOf(store.Index) == StoreFate.Serves && (!store.IsConnected || _copies.IsSpare(store.Index)))
            {
                return BlockedMilliseconds;
            }

            quiet &= !_copies.Stale.Any(store.Index);
        }

        return isShort ? BlockedMilliseconds : _copies.Wanted == 1 && quiet ? Timeout.Infinite : IdleMilliseconds;
    }

    /// <summary>What stores that are back hold in vain goes. What stores that are away hold is looked at.</summary>
    private bool Tidy()
    {
        bool progress = false;
        foreach (var store in _core.Stores)
        {
            if (Stopping || !store.TakesPages || _core.FateOf(store.Index) == StoreFate.Gone)
            {
                continue;
            }

            _copies.Saw(store.Index, store.IsConnected);
            if (!store.IsConnected)
            {
                if (_copies.Wanted > 1)
                {
                    _copies.NoteIfSpare(store.Index);
                }

                continue;
            }

            _copies.ForgetSpare(store.Index);
            progress |= _copies.Stale.Any(store.Index) && DiscardStale(store);
        }

        return progress;
    }

    private bool DiscardStale(RemoteStore store)
    {
        lock (_core.EvictionGate)
        {
            if (_copies.Expected(store.Index) > 0)
            {
                // What is noted of these is so only until they are there.
                return false;
            }

            int count = 0;
            for (long from = 0; count < BatchPages && _copies.Stale.Next(store.Index, from, FrameHeader.MaxPages, out var run); from = run.End)
            {
                _runs[count++] = run;
            }

            lock (_core.BulkGate)
            {
                if (!store.Bulk.Begin())
                {
                    return false;
                }

                for (int i = 0; i < count; i++)
                {
                    store.Bulk.Discard(_runs[i]);
                }

                store.Bulk.Close();
                if (!store.Bulk.Commit())
                {
                    return false;
                }

                store.Bulk.ClearFull();
            }

            FailurePoint.Reach("main.copies.discarded");
            for (int i = 0; i < count; i++)
            {
                _copies.Stale.TryClear(store.Index, _runs[i]);
            }

            return count > 0;
        }
    }

    /// <summary>Copies the next few pages that are short of one.</summary>
    private bool Fill()
    {
        bool any = false;
        for (int place = 0; place < PageEntry.MaxSubs; place++)
        {
            _fillable[place] = _copies.CanFill(place);
            any |= _fillable[place];
        }

        bool connected = false;
        for (long left = !any ? 0 : Math.Min(ScanPages, _core.Table.PageCount); left > 0 && !Stopping; left--)
        {
            long page = _hand;
            _hand = page + 1 == _core.Table.PageCount ? 0 : page + 1;
            var entry = _core.Table[page];
            if (entry.State != PageState.Remote || !_fillable[entry.Sub])
            {
                continue;
            }

            // Before evictions have to wait. One in a turn: what lies together may be at stores in turn.
            int source = _copies.StoreToAsk(page, entry.Sub);
            if (!IsConnectedTo(_core.Stores[source]))
            {
                if (connected || !TryConnect(_core.Stores[source]))
                {
                    continue;
                }

                connected = true;
            }

            lock (_core.EvictionGate)
            {
                entry = _core.Table[page];
                if (entry.State != PageState.Remote || !_copies.IsShort(entry.Sub) || _copies.IsGone(entry.Sub))
                {
                    continue;
                }

                int from = _copies.StoreToAsk(page, entry.Sub);
                int keep = _copies.IsUsable(from) ? from : -1;
                int to = _copies.Choose(from, page);
                // What leaves altogether is fetched from where it is; then the new store is the only one that stays, and one more comes later.
                int place = keep < 0 || to < 0 ? to : _core.Table.Places.Pair(_core.Table, keep, to);
                if (to < 0 || place < 0 || from != source || !_core.Stores[from].Demand.IsConnected || _core.Table.Places.Contains(entry.Sub, to))
                {
                    continue;
                }

                _hand = Gather(page, entry, to);
                return Copy(entry, _core.Stores[from], to, place);
            }
        }

        // A long way without any: not a reason to rest.
        return any && _core.Table.PageCount > ScanPages;
    }

    /// <summary>The next pages that are as <paramref name="entry"/> says, wherever they lie: the guest's pages leave one by one. Returns the page after them.</summary>
    private long Gather(long first, PageEntry entry, int to)
    {
        _runCount = 0;
        int count = 0;
        long end = Math.Min(first + WindowPages, _core.Table.PageCount);
        long page = first;
        for (; page < end && count < BatchPages; page++)
        {
            if (_core.Table[page] != entry || _copies.Stale.Has(to, page))
            {
                continue;
            }

            count++;
            if (_runCount > 0 && _runs[_runCount - 1] is var last && last.End == page)
            {
                _runs[_runCount - 1] = new(last.First, last.Count + 1);
            }
            else
            {
                _runs[_runCount++] = new(page, 1);
            }
        }

        return page % _core.Table.PageCount;
    }

    private bool Copy(PageEntry entry, RemoteStore from, int to, int place)
    {
        if (!TryRead(from))
        {
            return false;
        }

        foreach (var range in Runs)
        {
            if (!_copies.Stale.TryNote(to, range))
            {
                return false;
            }
        }

        FailurePoint.Reach("main.copies.noted");
        var store = _core.Stores[to];
        lock (_core.BulkGate)
        {
            if (!store.Bulk.Begin())
            {
                return false;
            }

            byte* content = _content;
            int index = 0;
            foreach (var range in Runs)
            {
                for (long page = range.First; page < range.End; page++, index++)
                {
                    // Those that the store did not have are not sent.
                    if (_present[index])
                    {
                        store.Bulk.Put(new(page, 1), content);
                        content += PageIndex.PageSize;
                    }
                }
            }

            store.Bulk.Close();
            if (!store.Bulk.Commit())
            {
                return false;
            }
        }

        FailurePoint.Reach("main.copies.sent");
        bool any = false;
        int at = 0;
        foreach (var range in Runs)
        {
            for (long page = range.First; page < range.End; page++, at++)
            {
                var now = entry;
                if (_present[at] && _copies.TryRehome(page, ref now, place, gained: to))
                {
                    any = true;
                    Interlocked.Increment(ref _made);
                }
            }
        }

        // What somebody has taken meanwhile stays noted, and is discarded at the next turn.
        return any || _copies.Stale.Any(to);
    }

    /// <summary>Reads the pages of <see cref="Runs"/> from a store: which of them are there, and their content one after the other.</summary>
    private bool TryRead(RemoteStore store)
    {
        using var patience = new Timer(_ => Volatile.Read(ref _connection)?.Abort(), null, s_answer, Timeout.InfiniteTimeSpan);
        try
        {
            var connection = _connection!;
            uint first = _sequence + 1;
            foreach (var range in Runs)
            {
                connection.Send(FrameHeader.Of(FrameType.Get, range, ++_sequence));
            }

            connection.Flush();
            int index = 0;
            byte* content = _content;
            foreach (var range in Runs)
            {
                content += ReadAnswer(connection, range, first++, _present.AsSpan(index, (int)range.Count), content);
                index += (int)range.Count;
            }

            _retry[store.Index] = 0;
            return content > _content;
        }
        catch (IOException)
        {
            Failed(store);
            return false;
        }
    }

    /// <summary>Whether <see cref="TryRead"/> may be called for this store.</summary>
    private bool IsConnectedTo(RemoteStore store) => _connection is not null && _connectedTo == store;

    /// <summary>Connects, unless it could not just now.</summary>
    private bool TryConnect(RemoteStore store)
    {
        if (Environment.TickCount64 < _notBefore[store.Index] || !store.Demand.IsConnected || _core.FateOf(store.Index) == StoreFate.Gone)
        {
            return false;
        }

        _connection?.Dispose();
        Volatile.Write(ref _connection, null);
        var options = store.Options;
        try
        {
            Volatile.Write(ref _connection, options.Connect(ConnectionPurpose.Demand, s_connect, out _, _stop.Token));
            _connectedTo = store;
            return true;
        }
        catch (Exception e) when (e is IOException or OperationCanceledException)
        {
            Failed(store);
            return false;
        }
    }

    /// <summary>It is away; its other connections will say so.</summary>
    private void Failed(RemoteStore store)
    {
        _connection?.Dispose();
        Volatile.Write(ref _connection, null);
        ref int retry = ref _retry[store.Index];
        retry = Math.Clamp(retry * 2, FirstRetryMilliseconds, LongestRetryMilliseconds);
        _notBefore[store.Index] = Environment.TickCount64 + retry;
    }

    /// <summary>The answer for one run, whose pages go to <paramref name="content"/>. Returns how many bytes they are.</summary>
    private int ReadAnswer(FrameConnection connection, PageRange range, uint sequence, Span<bool> present, byte* content)
    {
        if (!connection.Read(out var frame, _answer))
        {
            throw new IOException("The sub-host's worker closed the connection.");
        }

        int count = (int)range.Count;
        var flags = _answer.AsSpan(0, count);
        int bytes = flags.Count((byte)1) * PageIndex.PageSize;
        if (frame.Type != FrameType.GetDone || frame.Range != range || frame.Sequence != sequence
            || flags.IndexOfAnyExcept((byte)0, (byte)1) >= 0 || frame.PayloadBytes != count + bytes)
        {
            throw connection.Refuse($"The answer for {frame.Range} is not what was asked for.");
        }

        for (int i = 0; i < count; i++)
        {
            present[i] = flags[i] == 1;
        }

        _answer.AsSpan(count, bytes).CopyTo(new Span<byte>(content, bytes));
        return bytes;
    }
}
