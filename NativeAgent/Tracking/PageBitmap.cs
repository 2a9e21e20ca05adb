using System.Numerics;
using System.Runtime.InteropServices;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Tracking;

/// <summary>
/// One bit a page, in native memory that the kernel hands out only where a bit is set. Not thread-safe: one owner at a time.
/// </summary>
internal sealed unsafe partial class PageBitmap : IDisposable
{
    private const int KernelPageWords = 512;

    private ulong* _words;

    /// <param name="pageCount">1 to 2^40.</param>
    public PageBitmap(long pageCount)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(pageCount);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(pageCount, 1L << 40);
        PageCount = pageCount;
        WordCount = (pageCount + 63) >> 6;
        // calloc: large blocks come from the kernel as untouched zero pages.
        _words = (ulong*)NativeMemory.AllocZeroed((nuint)WordCount, sizeof(ulong));
    }

    public long PageCount { get; }

    public long WordCount { get; }

    /// <summary>The bits, 64 a word, page 0 in the lowest bit of the first. Bits past <see cref="PageCount"/> are 0.</summary>
    public Span<ulong> Words(long firstWord, int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(firstWord);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(firstWord + count, WordCount);
        return new(_words + firstWord, count);
    }

    /// <summary>Word <paramref name="index"/> of <see cref="Words"/>.</summary>
    public ulong Word(long index)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((ulong)index, (ulong)WordCount);
        return _words[index];
    }

    public bool this[long page]
    {
        get
        {
            Check(page);
            return (_words[page >> 6] >> (int)(page & 63) & 1) != 0;
        }

        set
        {
            Check(page);
            if (value)
            {
                _words[page >> 6] |= 1UL << (int)(page & 63);
            }
            else
            {
                _words[page >> 6] &= ~(1UL << (int)(page & 63));
            }
        }
    }

    /// <summary>Sets or clears every page of <paramref name="range"/>.</summary>
    public void Fill(PageRange range, bool value)
    {
        if (range.Count <= 0)
        {
            return;
        }

        var part = WordsOf(range);
        Apply(part.First, part.FirstMask, value);
        ulong fill = value ? ulong.MaxValue : 0;
        for (long w = part.First + 1; w < part.Last; w++)
        {
            _words[w] = fill;
        }

        Apply(part.Last, part.LastMask, value);
    }

    /// <summary>Sets every page of <paramref name="range"/>; returns how many of them were clear before.</summary>
    public long SetCounting(PageRange range)
    {
        if (range.Count <= 0)
        {
            return 0;
        }

        var part = WordsOf(range);
        long added = SetCounting(part.First, part.FirstMask);
        for (long w = part.First + 1; w < part.Last; w++)
        {
            added += SetCounting(w, ulong.MaxValue);
        }

        return added + SetCounting(part.Last, part.LastMask);
    }

    /// <summary>Clears every page of <paramref name="range"/>; returns how many of them were set before.</summary>
    public long ClearCounting(PageRange range)
    {
        long cleared = 0;
        for (long at = range.First; NextRunIn(new(at, range.End - at), out var run); at = run.End)
        {
            Fill(run, false);
            cleared += run.Count;
        }

        return cleared;
    }

    /// <summary>Sets every page that <paramref name="other"/> has; both have the same number of pages.</summary>
    public void Or(PageBitmap other)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(other.PageCount, PageCount);
        for (long w = 0; w < WordCount; w++)
        {
            ulong word = other._words[w];
            if ((word & ~_words[w]) != 0)
            {
                _words[w] |= word;
            }
        }
    }

    /// <summary>Clears every page that <paramref name="other"/> has; both have the same number of pages.</summary>
    public void AndNot(PageBitmap other)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(other.PageCount, PageCount);
        for (long w = 0; w < WordCount; w++)
        {
            if ((_words[w] & other._words[w]) != 0)
            {
                _words[w] &= ~other._words[w];
            }
        }
    }

    /// <summary>Becomes equal to <paramref name="other"/>, which has the same number of pages.</summary>
    public void CopyFrom(PageBitmap other)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(other.PageCount, PageCount);
        for (long w = 0; w < WordCount; w += KernelPageWords)
        {
            int count = (int)Math.Min(KernelPageWords, WordCount - w);
            var from = new ReadOnlySpan<ulong>(other._words + w, count);
            var to = new Span<ulong>(_words + w, count);
            if (!from.SequenceEqual(to))
            {
                from.CopyTo(to);
            }
        }
    }

    public void Clear()
    {
        for (long w = 0; w < WordCount; w += KernelPageWords)
        {
            // Reads before it writes, so that words never touched stay without memory.
            var words = new Span<ulong>(_words + w, (int)Math.Min(KernelPageWords, WordCount - w));
            if (words.ContainsAnyExcept(0UL))
            {
                words.Clear();
            }
        }
    }

    /// <summary>How many pages are set.</summary>
    public long Count()
    {
        long count = 0;
        for (long w = 0; w < WordCount; w++)
        {
            count += BitOperations.PopCount(_words[w]);
        }

        return count;
    }

    /// <summary>The first set page at or after <paramref name="from"/>, or -1.</summary>
    public long NextSet(long from) => Next(from, 0);

    /// <summary>The first clear page at or after <paramref name="from"/>, or -1.</summary>
    public long NextClear(long from) => Next(from, ulong.MaxValue);

    /// <summary>The next run of set pages that begins at or after <paramref name="from"/>; false at the end.</summary>
    public bool NextRun(long from, long maxPages, out PageRange run)
    {
        long first = NextSet(from);
        if (first < 0)
        {
            run = default;
            return false;
        }

        long end = NextClear(first);
        if (end < 0)
        {
            end = PageCount;
        }

        run = new(first, Math.Min(end - first, maxPages));
        return true;
    }

    public void Dispose()
    {
        NativeMemory.Free(_words);
        _words = null;
    }

    private long Next(long from, ulong invert)
    {
        long page = Find(from, PageCount, invert);
        return page < PageCount ? page : -1;
    }

    private long SetCounting(long word, ulong mask)
    {
        ulong before = _words[word];
        _words[word] = before | mask;
        return BitOperations.PopCount(mask & ~before);
    }

    private void Apply(long word, ulong mask, bool value)
    {
        if (value)
        {
            _words[word] |= mask;
        }
        else
        {
            _words[word] &= ~mask;
        }
    }

    private void Check(long page)
    {
        if ((ulong)page >= (ulong)PageCount)
        {
            throw new ArgumentOutOfRangeException(nameof(page), page, "The VM has no such page.");
        }
    }
}
