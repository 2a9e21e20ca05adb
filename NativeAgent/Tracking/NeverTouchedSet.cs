using System.Numerics;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Tracking;

/// <summary>
/// The pages that a guest has not written since boot, kept up to date from one look to the next at the cost of what was touched
/// in between; walking all of a RAM file for its holes costs with all that was ever touched.
/// <para>
/// Why that is exact: a guest touches a page only after its kernel has taken it from the free ones. So a page that was a hole and
/// is free still need not be looked at (it is unused either way), and of the others each one that was a hole is looked at
/// again. Holes that appear (a balloon's) are not noticed: such pages are free, or told as ballooned, by the kernel's account.
/// </para>
/// Only where nobody else punches holes, as <see cref="NeverTouchedPages"/>. One thread at a time; allocates nothing after it was made.
/// </summary>
internal sealed class NeverTouchedSet(GuestRam ram) : IDisposable
{
    private const int Chunk = 512;

    private bool _walked;
    private long _holes;

    /// <summary>Holes as of the last look, or pages that were holes and are free.</summary>
    public PageBitmap Pages { get; } = new(ram.PageCount);

    /// <summary>Before anything is read through a mapping: the first call finds the holes.</summary>
    /// <exception cref="KernelException">A RAM file can't be searched for holes.</exception>
    public void Prepare()
    {
        if (!_walked)
        {
            NeverTouchedPages.AddTo(ram, Pages);
            _walked = true;
        }
    }

    /// <summary>
    /// Finds the holes anew when many pages have been touched and freed since they were looked at: for who needs to know which free
    /// pages take memory. After <see cref="AddTo"/>.
    /// </summary>
    /// <exception cref="KernelException">A RAM file can't be searched for holes.</exception>
    public void LookAnewIfStale()
    {
        long touched = TouchedPages();
        if (_holes - (ram.PageCount - touched) > Math.Max(256, touched >> 10))
        {
            Pages.Clear();
            _holes = NeverTouchedPages.AddTo(ram, Pages);
        }
    }

    /// <summary>Of <paramref name="written"/> those that are no holes any more leave the set.</summary>
    public void LookAgainAt(PageBitmap written)
    {
        for (long page = written.NextSet(0); page >= 0;)
        {
            long word = page >> 6;
            if ((Pages.Word(word) & written.Word(word)) != 0)
            {
                LookAgain(word, ~written.Word(word));
            }

            page = (word + 1) << 6 < written.PageCount ? written.NextSet((word + 1) << 6) : -1;
        }
    }

    /// <summary>Adds them to the free pages in <paramref name="unused"/>.</summary>
    /// <param name="unused">Has free and ballooned pages, and no others.</param>
    /// <returns>How many pages were never touched, and how many are in <paramref name="unused"/> now.</returns>
    public (long NeverTouched, long Unused) AddTo(PageBitmap unused)
    {
        long holes = 0;
        long all = 0;
        for (long first = 0; first < Pages.WordCount; first += Chunk)
        {
            int count = (int)Math.Min(Chunk, Pages.WordCount - first);
            var hole = Pages.Words(first, count);
            var free = unused.Words(first, count);
            for (int w = 0; w < count; w++)
            {
                ulong h = hole[w];
                if ((h & ~free[w]) != 0)
                {
                    LookAgain(first + w, free[w]);
                    h = hole[w];
                }

                free[w] |= h;
                holes += BitOperations.PopCount(h);
                all += BitOperations.PopCount(free[w]);
            }
        }

        _holes = holes;
        // Pages touched and freed since they were looked at are still in the set; the files say how many have data.
        return (Math.Min(holes, ram.PageCount - TouchedPages()), all);
    }

    public void Dispose() => Pages.Dispose();

    private void LookAgain(long word, ulong free)
    {
        ulong doubtful = Pages.Word(word) & ~free;
        while (doubtful != 0)
        {
            int bit = BitOperations.TrailingZeroCount(doubtful);
            long page = (word << 6) + bit;
            int run = BitOperations.TrailingZeroCount(~(doubtful >> bit));
            var block = ram.BlockOf(page);
            long from = page - block.FirstPage;
            long data = SparseFile.NextData(block.File, from << PageIndex.PageShift);
            long clean = data < 0 ? run : Math.Min(run, (data >> PageIndex.PageShift) - from);
            if (clean == 0)
            {
                Pages[page] = false;
                clean = 1;
            }

            clean = Math.Min(clean, block.EndPage - page);
            doubtful &= clean + bit >= 64 ? 0 : ulong.MaxValue << (int)(bit + clean);
        }
    }

    private long TouchedPages()
    {
        long bytes = 0;
        foreach (var block in ram.Blocks)
        {
            bytes += SparseFile.AllocatedBytes(block.File);
        }

        return bytes >> PageIndex.PageShift;
    }
}
