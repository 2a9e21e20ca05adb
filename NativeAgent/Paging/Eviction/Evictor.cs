using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Keeps the pages here below the limit, ahead of the faults: begins above the high watermark and stops at the low one. Takes the oldest
/// pages, but for those that <see cref="PageHeat"/> spares; see <see cref="EvictionBatch"/> for how they leave.
/// A thread of its own, which allocates nothing after it has begun.
/// </summary>
internal sealed class Evictor : IDisposable
{
    /// <summary>How long to let things be when nothing can leave: sub-hosts away or full.</summary>
    private const int PauseMilliseconds = 50;

    private readonly PagingCore _core;
    private readonly EvictionBatch _batch;
    private readonly Evacuation _evacuation;
    private readonly Thread _thread;
    private readonly AutoResetEvent _wake = new(false);
    private long _copiesHand;
    private long _packedHand;
    private bool _spared;
    private volatile bool _sleeping;
    private volatile bool _stop;
    private volatile string? _problem;

    public Evictor(PagingCore core)
    {
        _core = core;
        _batch = new(core);
        _evacuation = new(core, _batch);
        _thread = new Thread(Run) { IsBackground = true, Name = "evictor" };
    }

    /// <summary>Why pages can't leave although they should; null when they can.</summary>
    public string? Problem => _problem;

    /// <summary>Bytes that its loop has allocated; tests hold it to 0.</summary>
    public long AllocatedBytes { get; private set; }

    public void Start() => _thread.Start();

    /// <summary>From any thread; costs nothing while it works.</summary>
    public void Wake()
    {
        if (_sleeping)
        {
            _wake.Set();
        }
    }

    /// <summary>Finishes or gives up the batch under way and ends the thread.</summary>
    public void Stop()
    {
        _stop = true;
        _wake.Set();
        if (!_thread.ThreadState.HasFlag(ThreadState.Unstarted))
        {
            _thread.Join();
        }
    }

    /// <summary>After <see cref="Stop"/>, when nobody can call <see cref="Wake"/> any more.</summary>
    public void Dispose()
    {
        _batch.Dispose();
        _wake.Dispose();
    }

    private void Run()
    {
        long before = GC.GetAllocatedBytesForCurrentThread();
        while (!_stop)
        {
            _sleeping = true;
            Interlocked.MemoryBarrier();
            if (_core.Table.LocalPages <= _core.HighPages && !_core.IsEvacuating)
            {
                _wake.WaitOne();
            }

            _sleeping = false;
            while (!_stop && !_core.Pages.Ended && (_core.Table.LocalPages > _core.LowPages || _core.IsEvacuating))
            {
                bool progress;
                lock (_core.EvictionGate)
                {
                    progress = (_core.Table.LocalPages > _core.LowPages && EvictSome()) | _evacuation.Run();
                }

                _core.WakeFaults();
                AllocatedBytes = GC.GetAllocatedBytesForCurrentThread() - before;
                if (!progress)
                {
                    _wake.WaitOne(PauseMilliseconds);
                }
            }

            if (_core.Pages.Ended)
            {
                return;
            }
        }
    }

    private bool EvictSome()
    {
        _spared = false;
        bool noRoom = Select((int)Math.Min(EvictionBatch.MaxPages, _core.Table.LocalPages - _core.LowPages));
        if (_batch.Count == 0 && !noRoom && UnpackSome())
        {
            return true;
        }

        bool progress;
        lock (_core.BulkGate)
        {
            progress = _batch.Run();
        }

        if (progress || (_spared && !noRoom))
        {
            // Pages that were passed over have cooled by that: the next turn finds more.
            _problem = null;
            return true;
        }

        if (noRoom && FreeOldCopies())
        {
            return true;
        }

        _problem = Explain(noRoom);
        return false;
    }

    /// <summary>
    /// Fills the batch from the queue, going round it at most twice. Returns whether a page had to stay for
    /// want of room at a sub-host.
    /// </summary>
    private bool Select(int want)
    {
        bool noRoom = false;
        long tries = 2 * _core.Queue.Count;
        long secondRound = tries / 2;
        while (_batch.Count < want && tries-- > 0 && _core.Queue.TryPop(out long page))
        {
            var entry = _core.Table[page];
            switch (entry.State)
            {
                case PageState.Busy:
                    _core.Queue.Push(page);
                    break;

                case PageState.Resident or PageState.ResidentClean when tries >= secondRound && _core.SeenFree[page]:
                    // Free a moment ago: reclaim is about to drop it, or the guest has just taken it. To send it is work for nothing.
                    _core.Queue.Push(page);
                    break;

                case PageState.Resident or PageState.ResidentClean when _core.Heat.Spares(page, _core.LimitPages):
                    _spared = true;
                    _core.Queue.Push(page);
                    break;

                case PageState.Resident or PageState.ResidentClean
                    when entry.Sub >= 0 && !_core.Table.Places.IsPair(entry.Sub) && _core.FateOf(entry.Sub) != StoreFate.Serves:
                    // It leaves when its old copy is off the sub-host that leaves.
                    _core.Queue.Push(page);
                    break;

                case PageState.ResidentClean when !_core.Copies.MayDropTo(entry.Sub):
                    // Those who have it are away: it is sent to others, as a page of its own.
                    _core.TryMakeWritable(page, entry);
                    _core.Queue.Push(page);
                    break;

                case PageState.ResidentClean:
                    if (!_batch.TryAddClean(page, entry))
                    {
                        _core.Queue.Push(page);
                    }

                    break;

                case PageState.Resident:
                    int place = _core.Copies.Target(page, ref entry, out bool full);
                    noRoom |= full;
                    if (place < 0 || !_batch.TryAddDirty(page, entry, place))
                    {
                        _core.Queue.Push(page);
                    }

                    break;

                default:
                    // It has left already, or comes back and is queued then.
                    break;
            }
        }

        return noRoom;
    }

    /// <summary>
    /// The sub-hosts have no room, but part of it holds old copies of pages that are here: gives some of those up. Whether any.
    /// </summary>
    private bool FreeOldCopies()
    {
        long left = _core.Table.PageCount;
        int found = 0;
        while (left-- > 0 && found < EvictionBatch.MaxPages && !_stop)
        {
            long page = _copiesHand;
            _copiesHand = page + 1 == _core.Table.PageCount ? 0 : page + 1;
            var entry = _core.Table[page];
            if (entry.State == PageState.Resident && _batch.CanDiscard(entry))
            {
                _batch.AddOldCopy(page, entry);
                found++;
            }
        }

        if (found == 0)
        {
            return false;
        }

        lock (_core.BulkGate)
        {
            return _batch.DiscardOldCopies();
        }
    }

    /// <summary>
    /// Nothing that is here as it is can leave, but packed pages take memory too: some of them become pages that can. Those in one page of their file
    /// lie side by side, so that it is freed. Whether any.
    /// </summary>
    private bool UnpackSome()
    {
        if (_core.Packed is not { } packed || !AnyStoreTakesPages())
        {
            return false;
        }

        int found = 0;
        for (int rounds = 0; rounds < 2 && found < EvictionBatch.MaxPages; rounds++)
        {
            while (found < EvictionBatch.MaxPages && !_stop && _packedHand < _core.Table.PageCount && packed.NextRun(_packedHand, out var run))
            {
                for (long page = run.First; page < run.End && found < EvictionBatch.MaxPages; page++)
                {
                    found += _core.TryUnpack(page) ? 1 : 0;
                    _packedHand = page + 1;
                }
            }

            _packedHand = found < EvictionBatch.MaxPages ? 0 : _packedHand;
        }

        return found > 0;
    }

    private bool AnyStoreTakesPages()
    {
        foreach (var store in _core.Stores)
        {
            if (store.TakesPages && _core.FateOf(store.Index) == StoreFate.Serves && store.Bulk.IsConnected && !store.Bulk.IsFull)
            {
                return true;
            }
        }

        return false;
    }

    private string? Explain(bool noRoom)
    {
        foreach (var store in _core.Stores)
        {
            if (store.TakesPages && _core.FateOf(store.Index) != StoreFate.Gone && !store.Bulk.IsConnected)
            {
                return store.Problem;
            }
        }

        return noRoom
            ? "No sub-host has room for more pages of this VM: give one of them more memory, raise the memory on the main host, or free memory in the guest."
            : null;
    }
}
