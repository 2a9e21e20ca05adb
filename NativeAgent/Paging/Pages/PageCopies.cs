using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Where copies of pages are and where they may go. A page may be at one store or at two (<see cref="Places"/>); which one, the table says
/// exactly: a store beside a Remote page has its content, whatever went on meanwhile. A store that is away when a page leaves is taken
/// from that page, and noted in <see cref="Stale"/> first.
/// </summary>
internal sealed class PageCopies : IDisposable
{
    private const int PagesPerChoice = 64;

    /// <summary>A store's rank from which on it answers at once.</summary>
    private const int CanAnswer = 2;

    private readonly PagingCore _core;
    private readonly string? _directory;
    private readonly long _patience;

    /// <summary>Since when each store is away; 0: it is not.</summary>
    private readonly long[] _awaySince = new long[PageEntry.MaxSubs];
    private readonly bool[] _spare = new bool[PageEntry.MaxSubs];
    private readonly long[] _expected = new long[PageEntry.MaxSubs];
    private volatile int _wanted;
    private readonly Choice[] _choices = new Choice[2];

    public PageCopies(PagingCore core, PagerOptions options)
    {
        string? directory = options.StateDirectory;
        _core = core;
        _directory = directory;
        _wanted = options.Copies;
        _patience = (long)options.CopyPatience.TotalMilliseconds;
        Stale = new(core.Table.PageCount, directory);
        for (int store = 0; store < _spare.Length; store++)
        {
            _spare[store] = directory is not null && File.Exists(SparePath(directory, store));
        }
    }

    public StaleCopies Stale { get; }

    /// <summary>1 or 2.</summary>
    public int Wanted
    {
        get => _wanted;
        set => _wanted = value;
    }

    private Places Places => _core.Table.Places;

    /// <summary>Stores that a worker before had seen to be away and to hold nothing that is nowhere else.</summary>
    public static int[] ReadSpare(string? directory) => directory is null ? []
        : [.. Enumerable.Range(0, PageEntry.MaxSubs).Where(store => File.Exists(SparePath(directory, store)))];

    /// <summary>Pages may leave for it, and be left to it alone.</summary>
    public bool IsUsable(int store)
    {
        var remote = _core.Stores[store];
        return remote.TakesPages && remote.Bulk.IsConnected && !remote.Bulk.IsFull && _core.FateOf(store) == StoreFate.Serves
            && !IsSpare(store);
    }

    /// <summary>Whether a page that is clean may be dropped as what its stores have.</summary>
    public bool MayDropTo(int place)
    {
        int first = Places.First(place);
        if (_wanted == 1 && !Places.IsPair(place))
        {
            return !IsSpare(first);
        }

        // Sent anew it is at two at once; dropped, it would be at one until somebody has made it another copy.
        return (IsKept(first) || IsKept(Places.Second(place))) && !(IsShort(place) && HasRoomBesides(place));
    }

    /// <summary>Nobody who is still there has it.</summary>
    public bool IsGone(int place) => IsGoneStore(Places.First(place)) && (Places.Second(place) < 0 || IsGoneStore(Places.Second(place)));

    /// <summary>Whom to ask for a page: one who answers, if there is one; of two, each has its stripes, so that what lies together is asked of one.</summary>
    public int StoreToAsk(long page, int place)
    {
        int first = Places.First(place);
        int second = Places.Second(place);
        if (second < 0)
        {
            return first;
        }

        if ((page >> 6 & 1) != 0)
        {
            (first, second) = (second, first);
        }

        int a = Rank(first);
        int b = Rank(second);
        return b > a ? second : first;
    }

    /// <summary>Whether another than <paramref name="store"/> can be asked for it at once.</summary>
    public bool IsElsewhere(int store, int place) => Places.Other(place, store) is var other and >= 0 && Rank(other) >= CanAnswer;

    /// <summary>Pages of which a store has a copy, or may get one by another way than an eviction.</summary>
    public long CopiesAt(int store) => Sum(store, remote: false) + Expected(store);

    /// <summary>Pages that may be on their way to a store, or there, without the table's naming it: see <see cref="TryExpect"/>.</summary>
    public long Expected(int store) => Volatile.Read(ref _expected[store]);

    /// <summary>
    /// Announces pages that are to be left to a store alone, and are not put there by an eviction: from now on until <see cref="Unexpect"/>
    /// the store is neither let go, nor held for one that has nothing of its own, nor made to forget stale copies. False: it can't take them.
    /// </summary>
    public bool TryExpect(int store, long pages)
    {
        // Whoever decides otherwise about the store looks at this afterwards, as this looks at what was decided.
        Interlocked.Add(ref _expected[store], pages);
        if (IsUsable(store) && CopiesAt(store) <= _core.Stores[store].LimitPages)
        {
            return true;
        }

        Unexpect(store, pages);
        return false;
    }

    /// <summary>They are there and the table says so, or they do not come.</summary>
    public void Unexpect(int store, long pages) => Interlocked.Add(ref _expected[store], -pages);

    /// <summary>Pages that lie at a store and not here.</summary>
    public long RemoteAt(int store) => Sum(store, remote: true);

    /// <summary>Pages of which only this store has a copy, of those that serve: what others need room for when it leaves.</summary>
    public long AloneAt(int store)
    {
        long count = 0;
        for (int place = 0; place < PageEntry.MaxSubs; place++)
        {
            count += Places.Contains(place, store) && !(Places.Other(place, store) is >= 0 and var other && IsUsable(other)) ? _core.Table.CopiesAt(place) : 0;
        }

        return count;
    }

    /// <summary>Remote pages that have fewer copies than are wanted.</summary>
    public long CountShort()
    {
        long count = 0;
        for (int place = 0; _wanted > 1 && place < PageEntry.MaxSubs; place++)
        {
            if (_core.Table.RemoteAt(place) is > 0 and var pages && IsShort(place))
            {
                count += pages;
            }
        }

        return count;
    }

    /// <summary>Copies that count for nothing at stores that serve.</summary>
    public long CountStale()
    {
        long count = 0;
        for (int store = 0; store < _core.Stores.Length; store++)
        {
            count += IsServing(store) ? Stale.Count(store) : 0;
        }

        return count;
    }

    /// <summary>Whether there is a store that pages of this place can be copied from, and one that they can be copied to.</summary>
    public bool CanFill(int place)
    {
        // Before all else: a number without pages stands for no store, perhaps.
        if (_core.Table.RemoteAt(place) == 0 || !IsShort(place))
        {
            return false;
        }

        int first = Places.First(place);
        int second = Places.Second(place);
        bool mayBothComeBack = MayComeBack(first) && MayComeBack(second);
        bool answers = Rank(first) >= CanAnswer || (second >= 0 && Rank(second) >= CanAnswer);
        if (mayBothComeBack || !answers)
        {
            return false;
        }

        return HasRoomBesides(place);
    }

    /// <summary>A store of it has left, is about to, or does not answer, and two are wanted; or it has one only.</summary>
    public bool IsShort(int place) => _wanted > 1 && !IsSource(Places.First(place)) && CountServing(place) < 2;

    /// <summary>For a page that is to leave: makes of its place what may be sent to, and says where it shall go. -1: it can't leave now.</summary>
    /// <param name="entry">Resident; what the page is afterwards.</param>
    /// <param name="noRoom">Because no store has room.</param>
    public int Target(long page, ref PageEntry entry, out bool noRoom)
    {
        noRoom = false;
        int first = Places.First(entry.Sub);
        int second = Places.Second(entry.Sub);
        if (IsSource(first))
        {
            return -1;
        }

        if (_wanted == 1 && second < 0)
        {
            // Its old copy is nobody else's to overwrite: it waits for the store that has it.
            int only = first >= 0 ? first : Choose(-1, page);
            noRoom = only < 0 || (_core.FateOf(only) == StoreFate.Serves && _core.Stores[only].Bulk.IsFull);
            return only >= 0 && IsUsable(only) ? only : -1;
        }

        int keep = first >= 0 && IsUsable(first) ? first : -1;
        int other = second >= 0 && IsUsable(second) ? second : -1;
        if (keep < 0 || (_wanted == 1 && other >= 0))
        {
            (keep, other) = (keep < 0 ? other : keep, -1);
        }

        int target = keep < 0 ? Choose(-1, page) : other < 0 ? keep : entry.Sub;
        if (target < 0)
        {
            noRoom = true;
            return -1;
        }

        if (_wanted > 1 && other < 0 && Choose(target, page) is var added and >= 0
            && Places.Pair(_core.Table, target, added) is var pair and >= 0)
        {
            target = pair;
        }

        int kept = keep < 0 ? -1 : other < 0 ? keep : entry.Sub;
        if (kept != entry.Sub && !TryRehome(page, ref entry, kept))
        {
            return -1;
        }

        return target;
    }

    /// <summary>
    /// The usable store that is emptiest for its size, has nothing stale of the page, and is not <paramref name="not"/>; -1: none. The same
    /// for some pages, so that runs stay together.
    /// </summary>
    public int Choose(int not, long page)
    {
        ref var choice = ref _choices[not < 0 ? 0 : 1];
        if (--choice.Left > 0 && choice.Not == not && HasRoom(choice.Store) && !Stale.Has(choice.Store, page))
        {
            return choice.Store;
        }

        int chosen = Emptiest(not, page);
        choice = new() { Store = chosen, Not = not, Left = chosen < 0 ? 0 : PagesPerChoice };
        return chosen;
    }

    /// <summary>As <see cref="Choose"/>, from any thread and anew each time.</summary>
    public int Emptiest(int not, long page)
    {
        int chosen = -1;
        double best = double.MaxValue;
        var stores = _core.Stores;
        for (int i = 0; i < stores.Length; i++)
        {
            double used = (double)CopiesAt(i) / Math.Min(stores[i].LimitPages, _core.Table.PageCount);
            if (i != not && used < best && HasRoom(i) && !Stale.Has(i, page))
            {
                best = used;
                chosen = i;
            }
        }

        return chosen;
    }

    public bool HasRoom(int store) => IsUsable(store) && CopiesAt(store) < _core.Stores[store].LimitPages;

    /// <summary>
    /// Takes stores from a page that is Resident or Remote: what they have counts for nothing from now on. Whoever waits for the page is
    /// woken. False: somebody was faster, or it could not be noted. By the holder of the eviction gate.
    /// </summary>
    /// <param name="place">What stays; within what the page has, or with a store more that has its content.</param>
    /// <param name="gained">That store; -1 for none.</param>
    public bool TryRehome(long page, ref PageEntry entry, int place, int gained = -1)
    {
        var busy = entry.With(PageState.Busy);
        if (!_core.Table.TryMove(page, entry, busy))
        {
            return false;
        }

        int away = entry.State == PageState.Remote ? 1 : 0;
        _core.Table.AddAwayWhileBusy(away);
        var next = new PageEntry(entry.State, place);
        var one = new PageRange(page, 1);
        bool noted = TryNoteOthers(Places.First(entry.Sub), place, page) && TryNoteOthers(Places.Second(entry.Sub), place, page)
            && (gained < 0 || Stale.TryClear(gained, one));
        if (!noted)
        {
            // What was noted for a store that stays is not so.
            for (int i = 0; i < 2; i++)
            {
                int store = i == 0 ? Places.First(entry.Sub) : Places.Second(entry.Sub);
                _ = store < 0 || Stale.TryClear(store, one);
            }

            next = entry;
        }

        _core.Table.Move(page, busy, next);
        _core.Table.AddAwayWhileBusy(-away);
        _core.Pages.Wake(one);
        _core.WakeFaults();
        entry = next;
        return noted;
    }

    /// <summary>For the owner of a Busy page that becomes unused: a store that does not confirm. Whether what it has is void now.</summary>
    public bool TryForget(int store, long page) =>
        (_wanted > 1 || Stale.Any(store)) && !IsSource(store) && Stale.TryNote(store, new(page, 1));

    /// <summary>
    /// Whether a store that is away has nothing that is nowhere else, so that a worker started again need not wait for it: noted if so. From
    /// the moment this begins nothing is left to it alone.
    /// </summary>
    public void NoteIfSpare(int store)
    {
        if (_directory is null || _spare[store] || _core.FateOf(store) != StoreFate.Serves)
        {
            return;
        }

        for (int place = 0; place < PageEntry.MaxSubs; place++)
        {
            if (IsAlone(place, store) && _core.Table.RemoteAt(place) > 0)
            {
                return;
            }
        }

        Volatile.Write(ref _spare[store], true);
        lock (_core.EvictionGate)
        {
            // No batch that had chosen it before is under way any more.
            bool alone = Expected(store) > 0;
            for (long page = 0; page < _core.Table.PageCount && !alone; page++)
            {
                var entry = _core.Table[page];
                alone = entry.State is not (PageState.Resident or PageState.ResidentClean or PageState.Lost) && IsAlone(entry.Sub, store);
            }

            if (!alone)
            {
                File.WriteAllText(SparePath(_directory, store), "");
                return;
            }
        }

        Volatile.Write(ref _spare[store], false);
    }

    /// <summary>Before something may be left to a store alone. From any thread.</summary>
    public void ForgetSpare(int store)
    {
        if (store >= 0 && Volatile.Read(ref _spare[store]))
        {
            File.Delete(SparePath(_directory!, store));
            Volatile.Write(ref _spare[store], false);
        }
    }

    /// <summary>Two copies are wanted, and what this store has is at another that is there: its being away holds nobody up.</summary>
    public bool IsDispensable(int store)
    {
        if (_wanted == 1 || IsSource(store))
        {
            return false;
        }

        bool other = false;
        for (int i = 0; i < _core.Stores.Length; i++)
        {
            other |= i != store && IsServing(i);
        }

        for (int place = 0; other && place < PageEntry.MaxSubs; place++)
        {
            other = !Places.Contains(place, store) || _core.Table.RemoteAt(place) == 0 || IsElsewhere(store, place);
        }

        return other && _core.Stores[store].Demand.Outstanding == 0;
    }

    /// <summary>Whether a store is there, as seen now; for the thread that makes copies.</summary>
    public void Saw(int store, bool there)
    {
        if (there || _awaySince[store] == 0)
        {
            Volatile.Write(ref _awaySince[store], there ? 0 : Environment.TickCount64);
        }
    }

    public bool IsSpare(int store) => Volatile.Read(ref _spare[store]);

    public void Dispose() => Stale.Dispose();

    private static string SparePath(string directory, int store) => Path.Combine(directory, $"sub-{store}-spare");

    private bool HasRoomBesides(int place)
    {
        for (int store = 0; store < _core.Stores.Length; store++)
        {
            if (!Places.Contains(place, store) && HasRoom(store))
            {
                return true;
            }
        }

        return false;
    }

    private bool IsAlone(int place, int store) => Places.Contains(place, store)
        && (Places.Other(place, store) is not (>= 0 and var other) || IsGoneStore(other) || IsSpare(other));

    private bool TryNoteOthers(int store, int place, long page) =>
        store < 0 || Places.Contains(place, store) || IsGoneStore(store) || Stale.TryNote(store, new(page, 1));

    private bool IsSource(int store) => store >= 0 && !_core.Stores[store].TakesPages;

    private bool IsGoneStore(int store) => _core.FateOf(store) == StoreFate.Gone;

    private int Rank(int store) => _core.FateOf(store) switch
    {
        StoreFate.Gone => 0,
        _ when !_core.Stores[store].Demand.IsConnected => 1,
        StoreFate.Leaves => CanAnswer,
        _ => CanAnswer + 1,
    };

    private int CountServing(int place) => (IsServing(Places.First(place)) ? 1 : 0) + (IsServing(Places.Second(place)) ? 1 : 0);

    private bool IsKept(int store) => IsServing(store) && !IsSpare(store);

    private bool MayComeBack(int store) => store >= 0 && _core.FateOf(store) == StoreFate.Serves
        && (Volatile.Read(ref _awaySince[store]) is var since && (since == 0 || Environment.TickCount64 - since < _patience));

    private bool IsServing(int store) =>
        store >= 0 && _core.FateOf(store) == StoreFate.Serves && _core.Stores[store].Bulk.IsConnected;

    private long Sum(int store, bool remote)
    {
        long sum = Of(store);
        for (int place = Places.MaxPaired; place < PageEntry.MaxSubs; place++)
        {
            sum += Places.IsPair(place) && Places.Contains(place, store) ? Of(place) : 0;
        }

        return sum;

        long Of(int place) => remote ? _core.Table.RemoteAt(place) : _core.Table.CopiesAt(place);
    }

    private struct Choice
    {
        public int Store;
        public int Not;
        public int Left;
    }
}
