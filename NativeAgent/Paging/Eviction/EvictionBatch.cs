using System.Runtime.InteropServices;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Some pages on their way out, each to one sub-host or to two, which both must have acknowledged it. A page that was written since it
/// came: protect → read → send → acknowledged → (Evicting → Busy) → punch the hole → Remote → wake. A clean one: (ResidentClean → Busy) →
/// punch → Remote → wake. A page of zeros, where unused pages are tracked: an old copy is discarded and that is acknowledged, then as
/// above, but Unused.
/// <para>
/// Why no write is lost: a page in Evicting is protected before it is read, so a write to it faults, and the fault thread moves it to
/// Busy before it lifts the protection. Only if the page is still in Evicting after the acknowledgement does the evictor get it into
/// Busy, and from then on the write waits until the page is Remote, and fetches it back.
/// </para>
/// <para>
/// Why a crash loses nothing: at every step the content is in the RAM file, or acknowledged by a sub-host, or in both; and what is in the
/// RAM file counts.
/// </para>
/// Used by the evictor's thread only. Owns its buffer.
/// </summary>
internal sealed unsafe class EvictionBatch : IDisposable
{
    public const int MaxPages = FrameHeader.MaxPages;

    private readonly PagingCore _core;

    /// <summary>Keys: page number, then one byte for "the sub-host has an old copy", then the page's entry; so sorting brings runs together.</summary>
    private readonly ulong[] _dirty = new ulong[MaxPages];

    private readonly ulong[] _clean = new ulong[MaxPages];
    private readonly ulong[] _old = new ulong[MaxPages];
    private readonly Verdict[] _verdicts = new Verdict[MaxPages];
    private readonly bool[] _used;
    private readonly bool[] _acknowledged;
    private readonly byte* _content = (byte*)NativeMemory.AlignedAlloc(MaxPages * PageIndex.PageSize, PageIndex.PageSize);
    private readonly byte[] _rows = new byte[RowCodec.MaxPages * RowCodec.MaxEncodedBytes];
    private int _dirtyCount;
    private int _cleanCount;
    private int _oldCount;

    public EvictionBatch(PagingCore core)
    {
        _core = core;
        _used = new bool[PageEntry.MaxSubs];
        _acknowledged = new bool[PageEntry.MaxSubs];
    }

    private enum Verdict : byte
    {
        Send,
        Zero,
        Drop,
        Gone,
    }

    public int Count => _dirtyCount + _cleanCount;

    public bool TryAddClean(long page, PageEntry entry)
    {
        var busy = entry.With(PageState.Busy);
        if (!_core.Table.TryMove(page, entry, busy))
        {
            return false;
        }

        _clean[_cleanCount++] = Key(page, busy, true);
        return true;
    }

    public bool TryAddDirty(long page, PageEntry entry, int sub)
    {
        var evicting = new PageEntry(PageState.Evicting, sub);
        if (!_core.Table.TryMove(page, entry, evicting))
        {
            return false;
        }

        _dirty[_dirtyCount++] = Key(page, evicting, entry.Sub >= 0);
        return true;
    }

    /// <summary>Whether the old copies of a page can go: all who have one are there.</summary>
    public bool CanDiscard(PageEntry entry) => entry.Sub >= 0 && _core.Stores[Places.First(entry.Sub)].Bulk.IsConnected
        && (Places.Second(entry.Sub) is var second && (second < 0 || _core.Stores[second].Bulk.IsConnected));

    /// <summary>A page in Resident whose old copies at its sub-hosts are to go.</summary>
    public void AddOldCopy(long page, PageEntry entry) => _old[_oldCount++] = Key(page, entry, true);

    /// <summary>Evicts what was added. Whether any page has left.</summary>
    public bool Run()
    {
        bool progress = DropClean();
        if (_dirtyCount > 0)
        {
            progress |= EvictDirty();
        }

        _dirtyCount = 0;
        return progress;
    }

    public bool DiscardOldCopies()
    {
        BeginStores(_old.AsSpan(0, _oldCount));
        for (int i = 0; i < _oldCount; i++)
        {
            Discard(EntryOf(_old[i]).Sub, new(PageOf(_old[i]), 1));
        }

        CommitStores();
        bool any = false;
        for (int i = 0; i < _oldCount; i++)
        {
            var entry = EntryOf(_old[i]);
            if (IsAcknowledged(entry.Sub))
            {
                ClearFull(Places.First(entry.Sub));
                ClearFull(Places.Second(entry.Sub));
                any |= _core.Table.TryMove(PageOf(_old[i]), entry, new(PageState.Resident));
            }
        }

        _oldCount = 0;
        return any;
    }

    public void Dispose() => NativeMemory.AlignedFree(_content);

    private Places Places => _core.Table.Places;

    private static ulong Key(long page, PageEntry entry, bool oldCopy) =>
        (ulong)page << 16 | (oldCopy ? 1UL << 8 : 0) | entry.Value;

    private static long PageOf(ulong key) => (long)(key >> 16);

    private static PageEntry EntryOf(ulong key) => new((byte)key);

    private static bool HasOldCopy(ulong key) => (key >> 8 & 1) != 0;

    /// <summary>How many of the sorted keys from <paramref name="at"/> on are consecutive pages of one block, with equal low bits where asked.</summary>
    private int RunLength(ReadOnlySpan<ulong> keys, int at, ulong equalBits = 0)
    {
        long end = _core.Pages.Ram.BlockOf(PageOf(keys[at])).EndPage;
        int next = at + 1;
        while (next < keys.Length
            && PageOf(keys[next]) == PageOf(keys[next - 1]) + 1
            && PageOf(keys[next]) < end
            && ((keys[next] ^ keys[at]) & equalBits) == 0)
        {
            next++;
        }

        return next - at;
    }

    private bool DropClean()
    {
        if (_cleanCount == 0)
        {
            return false;
        }

        var keys = _clean.AsSpan(0, _cleanCount);
        _cleanCount = 0;
        keys.Sort();
        FailurePoint.Reach("main.evict.clean");
        bool any = false;
        for (int i = 0; i < keys.Length;)
        {
            int count = RunLength(keys, i);
            bool punched = Punch(PageOf(keys[i]), count);
            any |= punched;
            for (int end = i + count; i < end; i++)
            {
                var busy = EntryOf(keys[i]);
                if (punched)
                {
                    _core.Heat.Left(PageOf(keys[i]), _core.LimitPages);
                }

                _core.Table.Move(PageOf(keys[i]), busy, busy.With(punched ? PageState.Remote : PageState.ResidentClean));
            }

            _core.Pages.Wake(new(PageOf(keys[i - count]), count));
            if (punched)
            {
                Interlocked.Add(ref _core.Counters.CleanDrops, count);
            }
            else
            {
                Requeue(keys.Slice(i - count, count));
            }
        }

        return any;
    }

    private bool EvictDirty()
    {
        var keys = _dirty.AsSpan(0, _dirtyCount);
        keys.Sort();
        if (!ProtectAndRead(keys))
        {
            foreach (ulong key in keys)
            {
                GiveBack(key);
            }

            return false;
        }

        for (int i = 0; i < keys.Length; i++)
        {
            _verdicts[i] = _core.TrackUnused && IsZero(i) ? Verdict.Zero : Verdict.Send;
        }

        Send(keys);
        CommitStores();
        FailurePoint.Reach("main.evict.acked");
        for (int i = 0; i < keys.Length; i++)
        {
            var entry = EntryOf(keys[i]);
            bool safe = IsAcknowledged(entry.Sub) || (_verdicts[i] == Verdict.Zero && !HasOldCopy(keys[i]));
            if (!safe)
            {
                GiveBack(keys[i]);
                _verdicts[i] = Verdict.Gone;
            }
            else if (!_core.Table.TryMove(PageOf(keys[i]), entry, entry.With(PageState.Busy)))
            {
                // The guest wrote to it, and has it back.
                _verdicts[i] = Verdict.Gone;
            }
            else if (_verdicts[i] == Verdict.Send)
            {
                _verdicts[i] = Verdict.Drop;
            }
        }

        FailurePoint.Reach("main.evict.dropping");
        bool any = Drop(keys);
        FailurePoint.Reach("main.evict.dropped");
        return any;
    }

    private bool ProtectAndRead(ReadOnlySpan<ulong> keys)
    {
        for (int i = 0, count; i < keys.Length; i += count)
        {
            count = RunLength(keys, i);
            if (_core.Pages.Protect(new(PageOf(keys[i]), count)) != 0)
            {
                ReportUnlessEnded("Pages could not be write-protected; they stay here.");
                return false;
            }
        }

        FailurePoint.Reach("main.evict.protected");
        for (int i = 0, count; i < keys.Length; i += count)
        {
            count = RunLength(keys, i);
            if (_core.Pages.Read(new(PageOf(keys[i]), count), _content + (long)i * PageIndex.PageSize) != 0)
            {
                ReportUnlessEnded("Pages could not be read from the VM's RAM file; they stay here.");
                return false;
            }
        }

        FailurePoint.Reach("main.evict.read");
        return true;
    }

    private void Send(ReadOnlySpan<ulong> keys)
    {
        BeginStores(keys);
        for (int i = 0; i < keys.Length;)
        {
            int count = RunLength(keys, i, equalBits: 0xff);
            int sub = EntryOf(keys[i]).Sub;
            for (int end = i + count; i < end;)
            {
                int same = 1;
                while (i + same < end && _verdicts[i + same] == _verdicts[i])
                {
                    same++;
                }

                var range = new PageRange(PageOf(keys[i]), same);
                if (_verdicts[i] == Verdict.Send)
                {
                    Put(sub, range, _content + (long)i * PageIndex.PageSize);
                }
                else
                {
                    // Also where there is no old copy: it costs 32 bytes, and a stale one left behind would cost the guest its zeros.
                    Discard(sub, range);
                }

                i += same;
            }
        }
    }

    private bool Drop(ReadOnlySpan<ulong> keys)
    {
        bool any = false;
        for (int i = 0; i < keys.Length;)
        {
            if (_verdicts[i] == Verdict.Gone)
            {
                i++;
                continue;
            }

            int count = RunLength(keys, i);
            int dropped = 1;
            while (dropped < count && _verdicts[i + dropped] != Verdict.Gone)
            {
                dropped++;
            }

            bool punched = Punch(PageOf(keys[i]), dropped);
            any |= punched;
            for (int k = i; k < i + dropped; k++)
            {
                Settle(keys[k], _verdicts[k], punched);
            }

            _core.Pages.Wake(new(PageOf(keys[i]), dropped));
            i += dropped;
        }

        return any;
    }

    private void Settle(ulong key, Verdict verdict, bool punched)
    {
        long page = PageOf(key);
        int sub = EntryOf(key).Sub;
        var busy = new PageEntry(PageState.Busy, sub);
        if (!punched)
        {
            // Its memory could not be given back: then it stays, and its protection goes.
            _core.Pages.Unprotect(new(page, 1));
            _core.Table.Move(page, busy, busy.With(PageState.Resident));
            _core.Queue.Push(page);
        }
        else if (verdict == Verdict.Zero)
        {
            _core.Table.Move(page, busy, new(PageState.Unused));
            Interlocked.Increment(ref _core.Counters.ZeroDrops);
        }
        else
        {
            _core.Heat.Left(page, _core.LimitPages);
            _core.Table.Move(page, busy, busy.With(PageState.Remote));
            CountPageOut(Places.First(sub));
            CountPageOut(Places.Second(sub));
        }
    }

    /// <summary>A page that is not to leave after all; unless the guest has it already.</summary>
    private void GiveBack(ulong key)
    {
        if (_core.TryMakeWritable(PageOf(key), EntryOf(key)))
        {
            _core.Queue.Push(PageOf(key));
        }
    }

    private void Requeue(ReadOnlySpan<ulong> keys)
    {
        foreach (ulong key in keys)
        {
            _core.Queue.Push(PageOf(key));
        }
    }

    private bool Punch(long first, int count)
    {
        if (_core.Pages.Punch(new(first, count)) == 0)
        {
            return true;
        }

        ReportUnlessEnded("Memory of pages could not be given back; they stay here.");
        return false;
    }

    private void BeginStores(ReadOnlySpan<ulong> keys)
    {
        _used.AsSpan().Clear();
        _acknowledged.AsSpan().Clear();
        foreach (ulong key in keys)
        {
            int place = EntryOf(key).Sub;
            Begin(Places.First(place));
            Begin(Places.Second(place));
        }
    }

    private void Begin(int store)
    {
        if (store >= 0 && !_used[store])
        {
            _used[store] = true;
            // When it is away, what is put into the batch goes nowhere and is not acknowledged.
            _core.Stores[store].Bulk.Begin();
        }
    }

    /// <summary>
    /// Tables, and pages with hardly anything in them, leave packed: a sub-host keeps them so, which saves both hosts most of the work. To see that
    /// a page is none of these costs next to nothing.
    /// </summary>
    private void Put(int place, PageRange range, byte* content)
    {
        var left = new ReadOnlySpan<byte>(content, (int)range.Bytes);
        int whole = 0;
        for (int page = 0; page < range.Count;)
        {
            int packed = RowCodec.EncodeRun(left[(page << PageIndex.PageShift)..], _rows, out int length);
            if (packed == 0)
            {
                page++;
                continue;
            }

            PutWhole(place, new(range.First + whole, page - whole), content + ((long)whole << PageIndex.PageShift));
            PutRows(place, new(range.First + page, packed), _rows.AsSpan(0, length));
            page += packed;
            whole = page;
        }

        PutWhole(place, new(range.First + whole, range.Count - whole), content + ((long)whole << PageIndex.PageShift));
    }

    private void PutWhole(int place, PageRange range, byte* content)
    {
        if (range.Count == 0)
        {
            return;
        }

        var (first, second) = ChannelsTo(place);
        first.Put(range, content);
        second?.Put(range, content);
    }

    private void PutRows(int place, PageRange range, ReadOnlySpan<byte> rows)
    {
        var (first, second) = ChannelsTo(place);
        first.PutRows(range, rows);
        second?.PutRows(range, rows);
    }

    private void Discard(int place, PageRange range)
    {
        var (first, second) = ChannelsTo(place);
        first.Discard(range);
        second?.Discard(range);
    }

    private (BulkChannel First, BulkChannel? Second) ChannelsTo(int place) => (
        _core.Stores[Places.First(place)].Bulk,
        Places.Second(place) is var second and >= 0 ? _core.Stores[second].Bulk : null);

    /// <summary>By all stores of the place: of two, one alone does not do.</summary>
    private bool IsAcknowledged(int place) =>
        _acknowledged[Places.First(place)] && Places.Second(place) is var second && (second < 0 || _acknowledged[second]);

    private void ClearFull(int store)
    {
        if (store >= 0)
        {
            _core.Stores[store].Bulk.ClearFull();
        }
    }

    private void CountPageOut(int store)
    {
        if (store >= 0)
        {
            Interlocked.Increment(ref _core.Counters.PageOuts[store]);
        }
    }

    /// <summary>All at once, so that one store's work overlaps another's; only then waits.</summary>
    private void CommitStores()
    {
        for (int i = 0; i < _used.Length; i++)
        {
            if (_used[i])
            {
                _core.Stores[i].Bulk.Close();
            }
        }

        for (int i = 0; i < _used.Length; i++)
        {
            _acknowledged[i] = _used[i] && _core.Stores[i].Bulk.Commit();
        }
    }

    private bool IsZero(int index) =>
        new ReadOnlySpan<byte>(_content + (long)index * PageIndex.PageSize, PageIndex.PageSize).IndexOfAnyExcept((byte)0) < 0;

    private void ReportUnlessEnded(string error)
    {
        if (!_core.Pages.Ended)
        {
            _core.Report(error);
        }
    }
}
