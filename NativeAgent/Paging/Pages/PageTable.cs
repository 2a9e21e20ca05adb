using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Paging;

/// <summary>
/// What and where each page of a split VM is: one byte a page, in native memory. The only file that knows the legal transitions; all
/// other counts are derived from it. Any thread may read; a transition is a compare-and-swap, so that of two threads that want the same
/// page one wins and the other looks again.
/// <code>
/// from            to              who, and what has been done before
/// Unused          Busy            fault thread
/// Packed          Busy            fault thread; reclaim: to unpack or to drop it, or because it is watched for writes
/// Remote          Fetching        fault thread; it asks after this
/// Remote          Busy            reclaim: the guest's kernel has it in a free block; source drain: a sub-host takes it from the source
/// Remote          Lost            whoever learns that the sub-host is gone for good
/// Fetching        Resident        whoever reads its answer, after UFFDIO_COPY
/// Fetching        ResidentClean   whoever reads its answer, after UFFDIO_COPY with write protection
/// Fetching        Remote          whoever reads its answer: the host has no memory for it now, or one of two sub-hosts does not have it;
///                                 whoever sees a sub-host go away while the other is there
/// Fetching        Lost            whoever reads its answer: the sub-host does not have it; fault thread: the sub-host was given up,
///                                 its connections have ended, and nobody reads answers of it any more
/// Resident        Evicting        evictor; it protects after this
/// Resident        Resident        evictor: an old copy was discarded, and that was acknowledged, or its sub-host was given up (the
///                                 sub-host's name goes)
/// Resident        Busy            whoever takes a sub-host from it (<see cref="PageCopies.TryRehome"/>); likewise from a Remote page
/// Resident        Busy            fault thread: to lift a protection that is left over; reclaim: to freeze it or to drop it
/// ResidentClean   Busy            fault thread, or whoever read its answer: to lift its protection; evictor: to drop it; reclaim
/// Evicting        Busy            fault thread: takes it back; evictor: content acknowledged, or given up
/// Busy            Resident        its owner, after lifting the protection, or after UFFDIO_ZEROPAGE
/// Busy            ResidentClean   its owner, which found nothing to change
/// Busy            Packed          its owner, which left it as it was
/// Busy            Remote          evictor, after punching the hole; reclaim, which leaves it where it was; source drain likewise, or when
///                                 the sub-host has it and the source has said that it forgot it
/// Busy            Unused          evictor, after punching the hole of a page of zeros; no sub-host has a copy, acknowledged; reclaim likewise
/// </code>
/// Two rules make it right:
/// <list type="bullet">
/// <item>Write protection is lifted only by the owner of a Busy page. A thread that lifted it late, for a fault long answered, could
/// otherwise open a page that is being evicted, and the write after it would be lost.</item>
/// <item>Whoever leaves Busy or Fetching wakes all who wait for the page afterwards; so a fault on a page in these states needs no answer.
/// The kernel enqueues a faulting thread before it looks at the page for the last time, so none slips between. The fault thread may have
/// woken them before: it reads no fault in between.</item>
/// </list>
/// Unused and packed pages have no sub-host beside them; Fetching and Remote pages always have one or two. A page gets a sub-host that it had not when
/// it begins to leave (Evicting), or from Busy, when the sub-host has confirmed that it has the content.
/// </summary>
internal sealed unsafe class PageTable : IDisposable
{
    private const int States = 9;

    private static readonly ushort[] s_legal = Legal();

    private readonly Counters* _counters;
    private byte* _entries;

    /// <param name="pageCount">1 to 2^40. All pages are unused at first.</param>
    public PageTable(long pageCount)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(pageCount);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(pageCount, 1L << 40);
        PageCount = pageCount;
        // calloc: large blocks come from the kernel as untouched zero pages, and zero is Unused.
        _entries = (byte*)NativeMemory.AllocZeroed((nuint)pageCount);
        _counters = (Counters*)NativeMemory.AllocZeroed((nuint)sizeof(Counters));
        _counters->State[(int)PageState.Unused] = pageCount;
    }

    ~PageTable() => Free();

    public long PageCount { get; }

    /// <summary>What the numbers beside pages stand for.</summary>
    public Places Places { get; } = new();

    /// <summary>Where it is noted what may be away, for the worker that comes after a crash; set before paging starts, its owner's. Null: nowhere.</summary>
    public AwayPages? Away { get; set; }

    /// <summary>Pages whose content takes memory here, or is about to.</summary>
    public long LocalPages => Count(PageState.Resident) + Count(PageState.ResidentClean) + Count(PageState.Evicting)
        + Count(PageState.Busy) - Volatile.Read(ref _counters->AwayWhileBusy) + Count(PageState.Fetching)
        + PackedShare;

    /// <summary>How many pages' memory the packed ones take.</summary>
    public long PackedShare => Packed?.FilePages ?? 0;

    /// <summary>Where packed pages lie; set before paging starts, its owner's. Null: nowhere.</summary>
    public Storage.PackedPages? Packed { get; set; }

    public PageEntry this[long page]
    {
        get
        {
            Check(page);
            return new(Volatile.Read(ref _entries[page]));
        }
    }

    /// <summary>Pages in a state. While pages move, one may be counted in two states or in none for a moment.</summary>
    public long Count(PageState state) => Volatile.Read(ref _counters->State[(int)state]);

    /// <summary>Remote pages of this place.</summary>
    public long RemoteAt(int sub) => Volatile.Read(ref _counters->Remote[sub]);

    /// <summary>Pages of this place, whose sub-hosts hold copies, be they good ones or old ones.</summary>
    public long CopiesAt(int sub) => Volatile.Read(ref _counters->Copies[sub]);

    /// <summary>The first page from <paramref name="from"/> on that is not unused; -1 when there is none. Passes over the unused ones quickly.</summary>
    public long NextWithContent(long from)
    {
        while (from < PageCount)
        {
            int bytes = (int)Math.Min(PageCount - from, 1 << 30);
            // Unused pages have no sub-host beside them: their byte is 0.
            int found = new ReadOnlySpan<byte>(_entries + from, bytes).IndexOfAnyExcept((byte)0);
            if (found >= 0)
            {
                return from + found;
            }

            from += bytes;
        }

        return -1;
    }

    /// <summary>Makes <paramref name="into"/>, which has as many pages, the set of the pages that are unused now.</summary>
    public void CopyUnused(PageBitmap into)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(into.PageCount, PageCount);
        for (long word = 0; word < into.WordCount; word++)
        {
            long first = word << 6;
            ulong unused = 0;
            if (first + 64 <= PageCount)
            {
                // Unused pages have no sub-host beside them: their byte is 0.
                unused = Vector256.Equals(Vector256.Load(_entries + first), Vector256<byte>.Zero).ExtractMostSignificantBits()
                    | (ulong)Vector256.Equals(Vector256.Load(_entries + first + 32), Vector256<byte>.Zero).ExtractMostSignificantBits() << 32;
            }
            else
            {
                for (int i = 0; first + i < PageCount; i++)
                {
                    unused |= (_entries[first + i] == 0 ? 1UL : 0) << i;
                }
            }

            ref ulong old = ref into.Words(word, 1)[0];
            if (old != unused)
            {
                old = unused;
            }
        }
    }

    /// <summary>Tells that this many more (or fewer) of the Busy pages have no memory here: their owner took them where a sub-host has them.</summary>
    public void AddAwayWhileBusy(long pages) => Interlocked.Add(ref _counters->AwayWhileBusy, pages);

    /// <summary>Moves a page if it still is what the caller saw.</summary>
    /// <exception cref="InvalidOperationException">There is no such transition: a bug in the caller.</exception>
    public bool TryMove(long page, PageEntry from, PageEntry to)
    {
        Check(page);
        if (!IsLegal(from, to))
        {
            throw new InvalidOperationException($"Page {page} can't go from {from} to {to}.");
        }

        if (to.State == PageState.Unused)
        {
            // By its owner, so it will come to that; before it, since afterwards others may have it leave again.
            Away?.Remove(page);
        }

        if (Interlocked.CompareExchange(ref _entries[page], to.Value, from.Value) != from.Value)
        {
            return false;
        }

        if (to.State == PageState.Evicting)
        {
            // The caller sends it to a store after this.
            Away?.Add(page);
        }

        // In this order a sub-host seems fuller for a moment, never emptier: nobody sends it a page too many.
        Account(to, 1);
        Account(from, -1);
        return true;
    }

    /// <summary>As <see cref="TryMove"/>, by the thread that owns the page.</summary>
    /// <exception cref="InvalidOperationException">It does not own it: a bug.</exception>
    public void Move(long page, PageEntry from, PageEntry to)
    {
        if (!TryMove(page, from, to))
        {
            throw new InvalidOperationException($"Page {page} is {this[page]}, not {from}.");
        }
    }

    public bool IsLegal(PageEntry from, PageEntry to)
    {
        if ((s_legal[(int)from.State] >> (int)to.State & 1) == 0)
        {
            return false;
        }

        return to.State switch
        {
            PageState.Unused => to.Sub < 0,
            PageState.Packed => from.Sub < 0,
            PageState.Remote when from.State == PageState.Fetching => to.Sub >= 0 && Places.Covers(from.Sub, to.Sub),
            PageState.Fetching or PageState.Remote or PageState.ResidentClean => to.Sub >= 0
                && (from.State == PageState.Busy || to.Sub == from.Sub),
            // A page is evicted to the sub-host that has its old copy, so that none lists what is not the page's content.
            PageState.Evicting => to.Sub >= 0 && Places.Covers(to.Sub, from.Sub),
            PageState.Resident when from.State == PageState.Resident => to.Sub < 0,
            PageState.Resident when from.State == PageState.Busy => Places.Covers(from.Sub, to.Sub),
            _ => to.Sub == from.Sub,
        };
    }

    /// <summary>Before paging starts: this content has been written into the RAM file; no sub-host has a copy.</summary>
    public void SetReceived(PageRange range) => Set(range, new(PageState.Resident));

    /// <summary>Before paging starts: this content is on sub-host <paramref name="sub"/> and nowhere else.</summary>
    public void SetRemote(PageRange range, int sub)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(sub);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(sub, PageEntry.MaxSubs);
        Set(range, new(PageState.Remote, sub));
    }

    /// <summary>Before paging starts: this content is beside the RAM file, which has a hole there.</summary>
    public void SetPacked(PageRange range) => Set(range, new(PageState.Packed));

    /// <summary>Before paging starts: these pages have no content, and the RAM file has a hole there.</summary>
    public void SetUnused(PageRange range) => Set(range, new(PageState.Unused));

    /// <summary>Before paging starts, or for tests: sets what pages are, whatever they were. Several threads may, each for other pages.</summary>
    public void Set(PageRange range, PageEntry entry)
    {
        if (range.Count <= 0)
        {
            return;
        }

        Check(range.First);
        Check(range.End - 1);
        byte last = entry.Value;
        long run = 0;
        for (long page = range.First; page < range.End; page++)
        {
            byte old = Interlocked.Exchange(ref _entries[page], entry.Value);
            if (old != last)
            {
                Account(new(last), -run);
                last = old;
                run = 0;
            }

            run++;
        }

        Account(new(last), -run);
        Account(entry, range.Count);
    }

    public void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    private static ushort[] Legal()
    {
        var legal = new ushort[States];
        void Allow(PageState from, params ReadOnlySpan<PageState> to)
        {
            foreach (var state in to)
            {
                legal[(int)from] |= (ushort)(1 << (int)state);
            }
        }

        Allow(PageState.Unused, PageState.Busy);
        Allow(PageState.Packed, PageState.Busy);
        Allow(PageState.Remote, PageState.Fetching, PageState.Lost, PageState.Busy);
        Allow(PageState.Fetching, PageState.Resident, PageState.ResidentClean, PageState.Remote, PageState.Lost);
        Allow(PageState.Resident, PageState.Evicting, PageState.Resident, PageState.Busy);
        Allow(PageState.ResidentClean, PageState.Busy);
        Allow(PageState.Evicting, PageState.Busy);
        Allow(PageState.Busy, PageState.Resident, PageState.ResidentClean, PageState.Remote, PageState.Unused, PageState.Packed);
        return legal;
    }

    private void Account(PageEntry entry, long pages)
    {
        if (pages == 0)
        {
            return;
        }

        Interlocked.Add(ref _counters->State[(int)entry.State], pages);
        if (entry.Sub >= 0 && entry.State != PageState.Lost)
        {
            Interlocked.Add(ref _counters->Copies[entry.Sub], pages);
            if (entry.State == PageState.Remote)
            {
                Interlocked.Add(ref _counters->Remote[entry.Sub], pages);
            }
        }
    }

    private void Check(long page)
    {
        if ((ulong)page >= (ulong)PageCount)
        {
            throw new ArgumentOutOfRangeException(nameof(page), page, "The VM has no such page.");
        }
    }

    private void Free()
    {
        NativeMemory.Free(_entries);
        _entries = null;
        NativeMemory.Free(_counters);
    }

    private struct Counters
    {
        public fixed long State[States];
        public fixed long Remote[PageEntry.MaxSubs];
        public fixed long Copies[PageEntry.MaxSubs];
        public long AwayWhileBusy;
    }
}
