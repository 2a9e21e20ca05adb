using System.Numerics;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Tracking;

/// <content>Questions about a part of the pages: each costs with the length of that part, never with what lies behind it.</content>
internal sealed unsafe partial class PageBitmap
{
    /// <summary>How many pages of <paramref name="range"/> are set.</summary>
    public long CountIn(PageRange range)
    {
        if (range.Count <= 0)
        {
            return 0;
        }

        var part = WordsOf(range);
        long count = BitOperations.PopCount(_words[part.First] & part.FirstMask) + BitOperations.PopCount(_words[part.Last] & part.LastMask);
        for (long w = part.First + 1; w < part.Last; w++)
        {
            count += BitOperations.PopCount(_words[w]);
        }

        return count;
    }

    /// <summary>How many pages are set that <paramref name="other"/> (of the same number of pages; may be null) does not have.</summary>
    public long CountWithout(PageBitmap? other)
    {
        if (other is null)
        {
            return Count();
        }

        ArgumentOutOfRangeException.ThrowIfNotEqual(other.PageCount, PageCount);
        long count = 0;
        for (long w = 0; w < WordCount; w++)
        {
            count += _words[w] == 0 ? 0 : BitOperations.PopCount(_words[w] & ~other._words[w]);
        }

        return count;
    }

    /// <summary>Sets every page of <paramref name="range"/> that <paramref name="other"/> has; both have the same number of pages.</summary>
    public void OrIn(PageRange range, PageBitmap other)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(other.PageCount, PageCount);
        if (range.Count <= 0)
        {
            return;
        }

        var part = WordsOf(range);
        _words[part.First] |= other._words[part.First] & part.FirstMask;
        _words[part.Last] |= other._words[part.Last] & part.LastMask;
        for (long w = part.First + 1; w < part.Last; w++)
        {
            _words[w] |= other._words[w];
        }
    }

    /// <summary>Whether all pages of <paramref name="range"/> are set.</summary>
    public bool Covers(PageRange range) => Find(range.First, range.End, ulong.MaxValue) == range.End;

    /// <summary>The first run of set pages that begins in <paramref name="within"/>, cut at its end; false when there is none.</summary>
    public bool NextRunIn(PageRange within, out PageRange run)
    {
        long first = Find(within.First, within.End, 0);
        run = first < within.End ? new(first, Find(first, within.End, ulong.MaxValue) - first) : default;
        return first < within.End;
    }

    /// <summary>
    /// The words of a range that is not empty: the first and the last with the bits that belong to it, those between belong to it whole.
    /// A range in one word has no bits in the last.
    /// </summary>
    private (long First, ulong FirstMask, long Last, ulong LastMask) WordsOf(PageRange range)
    {
        Check(range.First);
        Check(range.End - 1);
        long first = range.First >> 6;
        long last = (range.End - 1) >> 6;
        ulong firstMask = ulong.MaxValue << (int)(range.First & 63);
        ulong lastMask = ulong.MaxValue >> (int)(63 - ((range.End - 1) & 63));
        return first == last ? (first, firstMask & lastMask, last, 0) : (first, firstMask, last, lastMask);
    }

    /// <summary>The first set page (<paramref name="invert"/> 0) or clear page (all ones) from <paramref name="from"/> on; <paramref name="end"/> when there is none before it.</summary>
    private long Find(long from, long end, ulong invert)
    {
        if (from >= end)
        {
            return end;
        }

        Check(from);
        Check(end - 1);
        long w = from >> 6;
        long last = (end - 1) >> 6;
        ulong word = (_words[w] ^ invert) & (ulong.MaxValue << (int)(from & 63));
        while (word == 0)
        {
            if (++w > last)
            {
                return end;
            }

            word = _words[w] ^ invert;
        }

        return Math.Min(end, (w << 6) + BitOperations.TrailingZeroCount(word));
    }
}
