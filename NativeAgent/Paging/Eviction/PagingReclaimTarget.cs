using FCtrans.Agent.Memory;
using FCtrans.Agent.Reclaim;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Paging;

/// <summary>
/// The memory of a split VM, on its main host. A page that is frozen or held is Busy, so that no other thread lifts its protection,
/// fetches or evicts it. A held page that a sub-host has becomes unused only after the sub-host has confirmed that it forgot it; the guest
/// waits if it wants such a page meanwhile. Copies of pages that only a sub-host had may be gone already when that sub-host goes away:
/// they stay Busy until it is back and confirms. What a crash leaves is right either way: the content of a held page is dead.
/// Used by one thread, but for <see cref="Stop"/>.
/// </summary>
internal sealed class PagingReclaimTarget : IReclaimTarget, IDisposable
{
    private const int RetryMilliseconds = 50;

    private readonly PagingCore _core;
    private readonly PageBitmap _held;
    private readonly PageBitmap _wasRemote;
    private readonly PageBitmap _wasPacked;
    private readonly bool[] _used;
    private readonly bool[] _acknowledged;
    private volatile bool _stop;

    public PagingReclaimTarget(PagingCore core)
    {
        _core = core;
        _held = new(core.Table.PageCount);
        _wasRemote = new(core.Table.PageCount);
        _wasPacked = new(core.Table.PageCount);
        _used = new bool[PageEntry.MaxSubs];
        _acknowledged = new bool[PageEntry.MaxSubs];
    }

    public long RemoteDropped { get; private set; }

    /// <summary>16 MiB: the sub-hosts confirm a whole batch, and who wants a page of it waits for that.</summary>
    public long BatchPages => 4096;

    /// <summary>A free block can be larger than a batch; the sub-hosts are asked once for each.</summary>
    public long PiecePages => long.MaxValue;

    /// <summary>No more waiting for sub-hosts that are away. From any thread.</summary>
    public void Stop() => _stop = true;

    public long Count(PageRange block)
    {
        long count = 0;
        for (long page = block.First; page < block.End; page++)
        {
            count += IsTakeable(_core.Table[page].State) ? 1 : 0;
        }

        return count;
    }

    public bool IsElsewhere(PageRange block)
    {
        for (long page = block.First; page < block.End; page++)
        {
            if (_core.Table[page].State == PageState.Remote)
            {
                return true;
            }
        }

        return false;
    }

    public bool Freeze(long structPages)
    {
        if (_core.Table[structPages].State == PageState.Packed)
        {
            if (!_core.HasRoom)
            {
                _core.WakeEvictor();
                return false;
            }

            _core.TryUnpack(structPages);
        }

        var entry = _core.Table[structPages];
        var busy = entry.With(PageState.Busy);
        if (entry.State is not (PageState.Resident or PageState.ResidentClean) || !_core.Table.TryMove(structPages, entry, busy))
        {
            return false;
        }

        if (_core.Pages.Protect(new(structPages, 1)) == 0)
        {
            return true;
        }

        Thaw(structPages);
        return false;
    }

    public void Thaw(long structPages)
    {
        var busy = _core.Table[structPages];
        _core.Pages.Unprotect(new(structPages, 1));
        _core.Table.Move(structPages, busy, busy.With(PageState.Resident));
        _core.Pages.Wake(new(structPages, 1));
    }

    public bool Hold(PageRange pages)
    {
        for (long page = pages.First; page < pages.End; page++)
        {
            var entry = _core.Table[page];
            if (IsTakeable(entry.State) && _core.Table.TryMove(page, entry, entry.With(PageState.Busy)))
            {
                _held[page] = true;
                _wasRemote[page] = entry.State == PageState.Remote;
                _wasPacked[page] = entry.State == PageState.Packed;
                if (TakesNoRoom(page))
                {
                    _core.Table.AddAwayWhileBusy(1);
                }
            }
        }

        bool held = false;
        for (long at = pages.First; _held.NextRunIn(new(at, pages.End - at), out var run); at = run.End)
        {
            held = true;
            if (_core.Pages.Protect(run) != 0)
            {
                LetGo(pages);
                return false;
            }
        }

        return held;
    }

    public long Drop(PageRange pages)
    {
        Discard(pages);
        for (long page = pages.First; page < pages.End; page++)
        {
            if (_held[page] && !IsForgotten(page))
            {
                // Its content is here, whatever has become of the old copy.
                if (!_wasRemote[page])
                {
                    LetGo(new PageRange(page, 1));
                    continue;
                }

                while (!IsForgotten(page) && !_stop && !_core.Pages.Ended)
                {
                    Thread.Sleep(RetryMilliseconds);
                    Discard(new(page, pages.End - page));
                }

                if (!IsForgotten(page))
                {
                    _core.Table.AddAwayWhileBusy(-1);
                    // Whoever comes after this process finds out what the sub-host has.
                    _held[page] = false;
                }
            }
        }

        long dropped = 0;
        for (long at = pages.First; _held.NextRunIn(new(at, pages.End - at), out var run); at = run.End)
        {
            if (_core.Pages.Punch(run) != 0)
            {
                LetGoOfHere(run);
            }

            for (long inner = run.First; _held.NextRunIn(new(inner, run.End - inner), out var gone); inner = gone.End)
            {
                // Before they are anybody else's: a page that comes back may be protected for another reason.
                _core.Pages.Unprotect(gone);
                _core.RemovePacked(gone);
                for (long page = gone.First; page < gone.End; page++)
                {
                    if (TakesNoRoom(page))
                    {
                        _core.Table.AddAwayWhileBusy(-1);
                    }

                    _core.Table.Move(page, _core.Table[page], new(PageState.Unused));
                }

                _core.Pages.Wake(gone);
                _held.Fill(gone, false);
                dropped += gone.Count;
                RemoteDropped += _wasRemote.CountIn(gone);
            }
        }

        _core.WakeFaults();
        return dropped;
    }

    public void LetGo(PageRange pages)
    {
        LetGoOfHere(pages);
        for (long at = pages.First; _held.NextRunIn(new(at, pages.End - at), out var run); at = run.End)
        {
            _core.Pages.Unprotect(run);
            for (long page = run.First; page < run.End; page++)
            {
                _core.Table.AddAwayWhileBusy(-1);
                _core.Table.Move(page, _core.Table[page], _core.Table[page].With(PageState.Remote));
            }

            _core.Pages.Wake(run);
            _held.Fill(run, false);
        }

        // One may have been set aside for want of room, which this may have made.
        _core.WakeFaults();
    }

    public void Dispose()
    {
        _held.Dispose();
        _wasRemote.Dispose();
        _wasPacked.Dispose();
    }

    private static bool IsTakeable(PageState state) => state is PageState.Resident or PageState.ResidentClean or PageState.Remote or PageState.Packed;

    /// <summary>Of a held page: whether its content is not in the RAM file.</summary>
    private bool TakesNoRoom(long page) => _wasRemote[page] || _wasPacked[page];

    private bool IsForgotten(long page)
    {
        int place = _core.Table[page].Sub;
        return place < 0 || (IsForgottenAt(_core.Table.Places.First(place), page) && IsForgottenAt(_core.Table.Places.Second(place), page));
    }

    /// <summary>Where two copies are kept, a store that is away holds nobody up: what it has of the page is noted to be stale.</summary>
    private bool IsForgottenAt(int store, long page) =>
        store < 0 || _acknowledged[store] || _core.FateOf(store) == StoreFate.Gone || _core.Copies.TryForget(store, page);

    /// <summary>Held pages whose content is here stay, writable.</summary>
    private void LetGoOfHere(PageRange pages)
    {
        for (long at = pages.First; _held.NextRunIn(new(at, pages.End - at), out var run); at = run.End)
        {
            for (long page = run.First; page < run.End; page++)
            {
                if (!_wasRemote[page])
                {
                    _held[page] = false;
                    if (_wasPacked[page])
                    {
                        _core.Table.AddAwayWhileBusy(-1);
                    }

                    _core.Pages.Unprotect(new(page, 1));
                    _core.Table.Move(page, _core.Table[page], _core.Table[page].With(_wasPacked[page] ? PageState.Packed : PageState.Resident));
                    _core.Pages.Wake(new(page, 1));
                }
            }
        }
    }

    private void Discard(int store, PageRange pages)
    {
        if (store < 0)
        {
            return;
        }

        if (!_used[store])
        {
            _used[store] = true;
            _core.Stores[store].Bulk.Begin();
        }

        _core.Stores[store].Bulk.Discard(pages);
    }

    /// <summary>Asks each sub-host to forget its copies of held pages; afterwards <see cref="IsForgotten"/> tells.</summary>
    private void Discard(PageRange pages)
    {
        lock (_core.BulkGate)
        {
            _used.AsSpan().Clear();
            _acknowledged.AsSpan().Clear();
            for (long page = pages.First; page < pages.End;)
            {
                int place = _held[page] ? _core.Table[page].Sub : -1;
                long end = page + 1;
                if (place >= 0)
                {
                    while (end < pages.End && _held[end] && _core.Table[end].Sub == place)
                    {
                        end++;
                    }

                    Discard(_core.Table.Places.First(place), new(page, end - page));
                    Discard(_core.Table.Places.Second(place), new(page, end - page));
                }

                page = end;
            }

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
                if (_acknowledged[i])
                {
                    _core.Stores[i].Bulk.ClearFull();
                }
            }
        }
    }
}
