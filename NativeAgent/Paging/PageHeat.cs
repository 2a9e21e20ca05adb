using System.Runtime.InteropServices;
using FCtrans.Agent.Tracking;
using FCtrans.Contracts;

namespace FCtrans.Agent.Paging;

/// <summary>
/// What the evictor knows of a page's use. Pages of the guest's kernel are pinned: the guest waits for them more often than
/// for any other. For the rest the one signal there is without help of the guest is a page's return: one that comes back while
/// fewer pages have left than fit here would have stayed, had the evictor known. Such a page is passed over some times; one
/// that returns again and again, twice as often each time. (The idea of Linux's refault distance, mm/workingset.c.) A scan through more
/// memory than fits returns later than that, and gains nothing.
/// <para>Three bytes a page in native memory, which the kernel hands out only where pages have been evicted. Hints: threads may
/// race on a byte, and a page evicted long ago may look recent once its epoch number comes round.</para>
/// </summary>
internal sealed unsafe class PageHeat : IDisposable
{
    /// <summary>Times that a page which came back soon for the first time is passed over.</summary>
    private const int FirstHeat = 2;

    /// <summary>Returns that count: a page is passed over 2 × 2^6 times at most.</summary>
    private const int MostReturns = 7;

    /// <summary>Epochs in the time in which as many pages leave as fit here.</summary>
    private const int EpochsPerTurn = 8;

    /// <summary>Of the limit, the part that pinned pages may fill: the others must still be able to leave.</summary>
    private const double MostPinned = 0.75;

    private readonly PageBitmap? _pinned;
    private volatile EvictionPolicy _policy;
    private long _pinnedPages = -1;
    private byte* _heat;
    private byte* _returns;
    private byte* _epochOfEviction;
    private byte _epoch = 1;
    private long _evictedInEpoch;

    /// <param name="pageCount">Pages of the VM.</param>
    /// <param name="pinned">Pages that stay; null for none. Kept, not owned; not changed any more once <see cref="Spares"/> was called.</param>
    public PageHeat(long pageCount, PageBitmap? pinned)
    {
        _pinned = pinned;
        _heat = (byte*)NativeMemory.AllocZeroed((nuint)pageCount);
        _returns = (byte*)NativeMemory.AllocZeroed((nuint)pageCount);
        _epochOfEviction = (byte*)NativeMemory.AllocZeroed((nuint)pageCount);
    }

    /// <summary>Whether a page's heat counts: with <see cref="EvictionPolicy.OldestFirst"/> only pinned pages are spared.</summary>
    public EvictionPolicy Policy
    {
        get => _policy;
        set => _policy = value;
    }

    /// <summary>Whether <paramref name="page"/> is to stay for now. Each yes cools it.</summary>
    /// <param name="limitPages">What may be here.</param>
    public bool Spares(long page, long limitPages)
    {
        if (_pinned is { } pinned && pinned[page])
        {
            if (_pinnedPages < 0)
            {
                _pinnedPages = pinned.Count();
            }

            if (_pinnedPages <= limitPages * MostPinned)
            {
                return true;
            }
        }

        byte heat = _heat[page];
        if (heat == 0 || _policy == EvictionPolicy.OldestFirst)
        {
            return false;
        }

        _heat[page] = (byte)(heat - 1);
        return true;
    }

    /// <summary>The page has left. The evictor's thread only.</summary>
    public void Left(long page, long limitPages)
    {
        _epochOfEviction[page] = _epoch;
        if (++_evictedInEpoch >= Math.Max(1, limitPages / EpochsPerTurn))
        {
            _evictedInEpoch = 0;
            // 0 means never.
            _epoch = _epoch == byte.MaxValue ? (byte)1 : (byte)(_epoch + 1);
        }
    }

    /// <summary>The page was wanted and has come back.</summary>
    public void CameBack(long page)
    {
        byte left = _epochOfEviction[page];
        int ago = _epoch - left;
        if (ago < 0)
        {
            ago += byte.MaxValue;
        }

        if (left != 0 && ago < EpochsPerTurn)
        {
            Warm(page);
        }
        else if (_returns[page] > 0)
        {
            _returns[page]--;
        }
    }

    /// <summary>The page was wanted while it was leaving.</summary>
    public void TakenBack(long page) => Warm(page);

    /// <summary>Sets the pages of which it is known that the guest wants them often. Any thread.</summary>
    public void AddHotTo(PageBitmap into)
    {
        if (_pinned is { } pinned)
        {
            into.Or(pinned);
        }

        for (long page = 0; page < into.PageCount; page++)
        {
            if (_returns[page] != 0)
            {
                into[page] = true;
            }
        }
    }

    public void Dispose()
    {
        NativeMemory.Free(_heat);
        NativeMemory.Free(_returns);
        NativeMemory.Free(_epochOfEviction);
        _heat = null;
        _returns = null;
        _epochOfEviction = null;
    }

    private void Warm(long page)
    {
        int returns = Math.Min(_returns[page] + 1, MostReturns);
        _returns[page] = (byte)returns;
        _heat[page] = (byte)(FirstHeat << (returns - 1));
    }
}
