using System.Runtime.InteropServices;
using FCtrans.Agent.Tracking;
using FCtrans.Contracts;

namespace FCtrans.Agent.Paging;

/// <summary>
/// What the evictor knows of a page's use. Pages of the guest's kernel are pinned: the guest waits for them more often than
/// for any other. For the rest there are two signals. A page that comes back while fewer pages have left than fit here would have
/// stayed, had the evictor known: it is passed over some times; one that returns again and again, more often each time. (The idea of
/// Linux's refault distance, mm/workingset.c.) A scan through more memory than fits returns later than that, and gains nothing. And
/// what the guest's own kernel holds for hot, looked up from outside (<see cref="GuestHeat"/>), gets a second chance.
/// <para>
/// Half a byte a page in native memory, which the kernel hands out only where pages have been evicted: how warm the page is, and in which
/// period it left last. How often a page is passed over is left to chance, so that no count of it need be kept. Hints: threads may
/// race on a byte, and lose one.
/// </para>
/// </summary>
internal sealed unsafe class PageHeat : IDisposable
{
    /// <summary>Periods that are told apart, in the time in which as many pages leave as fit here. Their numbers are 1 to this; 0 is longer ago.</summary>
    private const int Periods = 3;

    private const int MostWarm = 3;

    /// <summary>A page of warmth w is passed over but for once in 4^w times.</summary>
    private const int ChanceBits = 2;

    /// <summary>Pinned pages, if there are too many to stay: they leave as the warm ones do.</summary>
    private const int WarmthOfPinned = 2;

    /// <summary>Of the limit, the part that pinned pages may fill: the others must still be able to leave.</summary>
    private const double MostPinned = 0.75;

    private const int WarmMask = 3;
    private const int PeriodShift = 2;

    /// <summary>Both bits of the period in every half byte of a word, and its lower bit.</summary>
    private const ulong PeriodsOfWord = 0xCCCC_CCCC_CCCC_CCCC;

    private const ulong LowBitsOfWord = 0x4444_4444_4444_4444;

    /// <summary>Pages that the guest's kernel holds for hot are no colder than this.</summary>
    private const int WarmthOfGuestHot = 1;

    private readonly PageBitmap? _firstPinned;
    private readonly long _pageCount;
    private readonly long _words;
    private volatile PinnedSet? _pinned;
    private volatile EvictionPolicy _policy;
    private PageBitmap? _nextPinned;
    private byte* _pairs;
    private int _period = 1;
    private long _leftInPeriod;
    private ulong _random = 0x9E3779B97F4A7C15;

    /// <param name="pageCount">Pages of the VM.</param>
    /// <param name="pinned">Pages that stay until <see cref="PinNext"/>; null for none. Kept, not owned, and not changed any more.</param>
    public PageHeat(long pageCount, PageBitmap? pinned)
    {
        _pageCount = pageCount;
        _firstPinned = pinned;
        _pinned = pinned is null ? null : new(pinned, pinned.Count());
        _words = (pageCount + 15) / 16;
        _pairs = (byte*)NativeMemory.AllocZeroed((nuint)_words, sizeof(ulong));
        GuestHot = new(pageCount);
    }

    /// <summary>Pages that the guest's kernel holds for hot, as of the last look at its lists; one thread may write it while others read.</summary>
    public PageBitmap GuestHot { get; }

    /// <summary>Whether a page's heat counts: with <see cref="EvictionPolicy.OldestFirst"/> only pinned pages are spared.</summary>
    public EvictionPolicy Policy
    {
        get => _policy;
        set => _policy = value;
    }

    /// <summary>Whether it is a page of the guest's kernel, which should be here. Any thread.</summary>
    public bool IsPinned(long page) => _pinned is { } pinned && pinned.Pages[page];

    /// <summary>The pages that stay; null for none. Not to be changed.</summary>
    public PageBitmap? Pinned => _pinned?.Pages;

    /// <summary>Which pages stay from the next <see cref="PinNext"/> on: for the one thread that finds that out. At first it has what it had last, or nothing.</summary>
    public PageBitmap NextPinned => _nextPinned ??= new(_pageCount);

    /// <summary>
    /// From now on the pages of <see cref="NextPinned"/> stay, and no others; that has become the set from before. Whoever calls it sees to it
    /// that no victims are being chosen. Who looks at the set from before a moment longer sees what is being made of it: these are hints.
    /// </summary>
    public void PinNext()
    {
        var next = NextPinned;
        var old = Pinned;
        _pinned = new(next, next.Count());
        _nextPinned = old == _firstPinned ? null : old;
    }

    /// <summary>Whether <paramref name="page"/> is to stay for now; no page for ever, unless it is pinned. The evictor's thread only.</summary>
    /// <param name="limitPages">What may be here.</param>
    public bool Spares(long page, long limitPages)
    {
        int warmth = _policy == EvictionPolicy.OldestFirst ? 0 : Get(page) & WarmMask;
        if (_pinned is { } pinned && pinned.Pages[page])
        {
            if (pinned.Count <= limitPages * MostPinned)
            {
                return true;
            }

            warmth = Math.Max(warmth, WarmthOfPinned);
        }
        else if (warmth < WarmthOfGuestHot && _policy != EvictionPolicy.OldestFirst && GuestHot[page])
        {
            warmth = WarmthOfGuestHot;
        }

        return warmth > 0 && (Random() & ((1u << (ChanceBits * warmth)) - 1)) != 0;
    }

    /// <summary>The page has left. The evictor's thread only.</summary>
    public void Left(long page, long limitPages)
    {
        Set(page, (Get(page) & WarmMask) | _period << PeriodShift);
        if (++_leftInPeriod >= Math.Max(1, limitPages / Periods))
        {
            _leftInPeriod = 0;
            _period = _period == Periods ? 1 : _period + 1;
            ForgetPeriod(_period);
        }
    }

    /// <summary>The page was wanted and has come back.</summary>
    public void CameBack(long page)
    {
        int was = Get(page);
        int warmth = was & WarmMask;
        if (was >> PeriodShift != 0)
        {
            Warm(page, warmth);
        }
        else if (warmth > 0)
        {
            Set(page, warmth - 1);
        }
    }

    /// <summary>The page was wanted while it was leaving.</summary>
    public void TakenBack(long page) => Warm(page, Get(page) & WarmMask);

    /// <summary>Sets the pages of which it is known that the guest wants them often. Any thread.</summary>
    public void AddHotTo(PageBitmap into)
    {
        if (Pinned is { } pinned)
        {
            into.Or(pinned);
        }

        into.Or(GuestHot);
        for (long word = 0; word < _words; word++)
        {
            if ((((ulong*)_pairs)[word] & ~PeriodsOfWord) == 0)
            {
                continue;
            }

            for (long page = word * 16; page < Math.Min((word + 1) * 16, into.PageCount); page++)
            {
                if ((Get(page) & WarmMask) != 0)
                {
                    into[page] = true;
                }
            }
        }
    }

    public void Dispose()
    {
        NativeMemory.Free(_pairs);
        _pairs = null;
        GuestHot.Dispose();
        _nextPinned?.Dispose();
        if (Pinned != _firstPinned)
        {
            Pinned!.Dispose();
        }
    }

    private void Warm(long page, int warmth) => Set(page, Math.Min(warmth + 1, MostWarm));

    private int Get(long page) => _pairs[page >> 1] >> (int)((page & 1) * 4) & 0xf;

    private void Set(long page, int value)
    {
        ref byte pair = ref _pairs[page >> 1];
        int shift = (int)((page & 1) * 4);
        pair = (byte)((pair & ~(0xf << shift)) | value << shift);
    }

    /// <summary>What left when this number was last in use left too long ago to count.</summary>
    private void ForgetPeriod(int period)
    {
        ulong pattern = (ulong)period * LowBitsOfWord;
        ulong* words = (ulong*)_pairs;
        for (long i = 0; i < _words; i++)
        {
            ulong word = words[i];
            ulong differs = (word ^ pattern) & PeriodsOfWord;
            ulong same = ~(differs | differs >> 1) & LowBitsOfWord;
            if (same != 0)
            {
                words[i] = word & ~(same | same << 1);
            }
        }
    }

    private uint Random()
    {
        _random ^= _random << 13;
        _random ^= _random >> 7;
        _random ^= _random << 17;
        return (uint)(_random >> 32);
    }

    /// <summary>A set and how many pages it has, which are replaced together.</summary>
    private sealed record PinnedSet(PageBitmap Pages, long Count);
}
