using System.Numerics;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Tracking;

/// <summary>Write-protects pages for a <see cref="WriteWatch"/>.</summary>
internal interface IWriteProtection
{
    /// <summary>
    /// Write-protects pages in a row, from the first one on, and calls <see cref="WriteWatch.Protected"/> for them while nobody can lift that
    /// protection again. Does not allocate.
    /// </summary>
    /// <returns>How many; 0 when the first can't be protected now.</returns>
    long Protect(PageRange pages, WriteWatch watch);
}

/// <summary>
/// Which of some pages were written since they were last looked at, where protecting a page makes its next writer wait for this agent: as on
/// the main host of a split VM. A page that nobody writes is protected once and costs nothing afterwards. One that is written whenever it
/// is protected would make the guest wait at each look, so that it rests: for some looks it counts as written without being protected.
/// <para>
/// Why no write is missed: <see cref="Look"/> tells a page as unwritten only while its bit stands. The bit is set while the page is protected and
/// owned by who protects it, and whoever lifts a protection, or changes what the page is, clears it first. A page is protected before its
/// caller reads it: a write after that is in the next answer.
/// </para>
/// Looks and answers belong to one thread; <see cref="Protected"/> and <see cref="Wrote"/> to any.
/// </summary>
internal sealed class WriteWatch : IDisposable
{
    /// <summary>Looks that a page rests when it was written while it was protected.</summary>
    internal const int RestingLooks = 8;

    /// <summary>Protected in one look at most, so that the first looks at a large VM stay short: some milliseconds.</summary>
    internal const long MaxProtected = 64 * 1024;

    private readonly IWriteProtection _protection;
    private readonly PageBitmap _unwritten;
    private readonly PageBitmap _protected;
    private readonly PageBitmap _resting;
    private readonly PageBitmap _written;
    private int _looks;

    public WriteWatch(long pageCount, IWriteProtection protection)
    {
        _protection = protection;
        _unwritten = new(pageCount);
        _protected = new(pageCount);
        _resting = new(pageCount);
        _written = new(pageCount);
        // What is not watched may have been written.
        _written.Fill(new(0, pageCount), true);
    }

    /// <summary>
    /// The pages that were written since the last look; those never looked at, and all outside of <paramref name="watched"/>, count as written.
    /// Good until the next call; read the pages after it.
    /// </summary>
    /// <param name="watched">The same ranges at each look, until <see cref="Forget"/>.</param>
    public PageBitmap Look(IReadOnlyList<PageRange> watched)
    {
        if (++_looks % RestingLooks == 0)
        {
            _resting.Clear();
        }

        long left = MaxProtected;
        for (int i = 0; i < watched.Count; i++)
        {
            for (long page = watched[i].First; page < watched[i].End;)
            {
                long word = page >> 6;
                long end = Math.Min(watched[i].End, (word + 1) << 6);
                ulong mask = Mask(page, end - page);
                ulong unwritten = Volatile.Read(ref _unwritten.Words(word, 1)[0]) & mask;
                ref ulong written = ref _written.Words(word, 1)[0];
                written = (written & ~mask) | (mask & ~unwritten);
                if (unwritten != mask)
                {
                    Renew(word, mask & ~unwritten, ref left);
                }

                page = end;
            }
        }

        return _written;
    }

    /// <summary>These pages are watched no longer.</summary>
    public void Forget(IReadOnlyList<PageRange> watched)
    {
        for (int i = 0; i < watched.Count; i++)
        {
            Wrote(watched[i]);
            _written.Fill(watched[i], true);
            _protected.Fill(watched[i], false);
            _resting.Fill(watched[i], false);
        }
    }

    /// <summary>Told by <see cref="IWriteProtection.Protect"/>: these pages are protected.</summary>
    public void Protected(PageRange pages)
    {
        for (long page = pages.First; page < pages.End;)
        {
            long end = Math.Min(pages.End, (page | 63) + 1);
            Interlocked.Or(ref _unwritten.Words(page >> 6, 1)[0], Mask(page, end - page));
            page = end;
        }
    }

    /// <summary>Told before these pages' protection is lifted, or their content goes or comes.</summary>
    public void Wrote(PageRange pages)
    {
        for (long page = pages.First; page < pages.End;)
        {
            long end = Math.Min(pages.End, (page | 63) + 1);
            ref ulong word = ref _unwritten.Words(page >> 6, 1)[0];
            ulong mask = Mask(page, end - page);
            if ((Volatile.Read(ref word) & mask) != 0)
            {
                Interlocked.And(ref word, ~mask);
            }

            page = end;
        }
    }

    public void Dispose()
    {
        _unwritten.Dispose();
        _protected.Dispose();
        _resting.Dispose();
        _written.Dispose();
    }

    /// <summary>Protects again what of a word was written, but for pages that rest.</summary>
    private void Renew(long word, ulong pages, ref long left)
    {
        ref ulong resting = ref _resting.Words(word, 1)[0];
        ref ulong known = ref _protected.Words(word, 1)[0];
        if ((known & pages) != 0)
        {
            // Written although they were protected: their writers have waited.
            resting |= known & pages;
            known &= ~pages;
        }

        for (ulong due = pages & ~resting; due != 0 && left > 0;)
        {
            int first = BitOperations.TrailingZeroCount(due);
            int count = BitOperations.TrailingZeroCount(~(due >> first));
            long done = _protection.Protect(new((word << 6) + first, Math.Min(count, 64 - first)), this);
            known |= done == 0 ? 0 : Mask(first, done);
            left -= done;
            due &= ~Mask(first, Math.Max(done, 1));
        }
    }

    /// <summary>The bits of <paramref name="count"/> pages (1 to 64) from <paramref name="first"/> on, all in one word.</summary>
    private static ulong Mask(long first, long count) => (ulong.MaxValue >> (int)(64 - count)) << (int)(first & 63);
}
