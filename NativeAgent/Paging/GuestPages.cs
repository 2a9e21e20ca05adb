using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Paging;

/// <summary>
/// What can be done to guest pages, by page index: userfaultfd for QEMU's mapping, the RAM file for the content. No method allocates,
/// throws or blocks for longer than the kernel takes; each returns an errno, 0 when done. A range lies in one RAM block.
/// </summary>
/// <param name="ram">Of the VM.</param>
/// <param name="uffds">Of the VM.</param>
/// <param name="memoryErrors">As <see cref="PagerOptions.MemoryErrors"/>.</param>
internal sealed unsafe class GuestPages(GuestRam ram, UserfaultfdSet uffds, bool memoryErrors = true)
{
    private volatile bool _ended;
    private volatile WriteWatch? _watch;

    /// <summary>The VM's process, or its mapping of the RAM, is gone.</summary>
    public bool Ended => _ended;

    public GuestRam Ram => ram;

    public UserfaultfdSet Uffds => uffds;

    /// <summary>Told of each page before it can be written again, or its content changes.</summary>
    public WriteWatch? Watch
    {
        get => _watch;
        set => _watch = value;
    }

    /// <summary>Fills a missing page. EEXIST: it was there; nobody was woken.</summary>
    public int Copy(long page, byte* content, bool protect)
    {
        _watch?.Wrote(new(page, 1));
        var uffd = uffds.Of(page);
        var address = ram.AddressOf(page);
        int errno;
        do
        {
            errno = uffd.Copy(address, content, PageIndex.PageSize, protect ? UffdCopyMode.Wp : UffdCopyMode.None, out _);
        }
        while (Again(errno));
        return errno;
    }

    /// <summary>Fills missing pages, in order, as far as it gets: <paramref name="copied"/> pages are in, and who waits for them was woken.</summary>
    public int Copy(PageRange range, byte* content, bool protect, out long copied)
    {
        _watch?.Wrote(range);
        var address = ram.AddressOf(range.First);
        copied = 0;
        int errno;
        do
        {
            long at = copied << PageIndex.PageShift;
            var part = uffds.First(new(range.First + copied, range.Count - copied), out var uffd);
            errno = uffd.Copy(
                address + (ulong)at, content + at, (ulong)part.Bytes, protect ? UffdCopyMode.Wp : UffdCopyMode.None, out long bytes);
            copied += bytes >> PageIndex.PageShift;
        }
        while ((errno == 0 || Again(errno)) && copied < range.Count);
        return errno;
    }

    /// <summary>Fills a missing page with zeros. EEXIST: it was there; nobody was woken.</summary>
    public int Zero(long page)
    {
        _watch?.Wrote(new(page, 1));
        var uffd = uffds.Of(page);
        var address = ram.AddressOf(page);
        int errno;
        do
        {
            errno = uffd.ZeroPage(address, PageIndex.PageSize, UffdZeroMode.None, out _);
        }
        while (Again(errno));
        return errno;
    }

    /// <summary>Fills missing pages with zeros, in order, as far as it gets: <paramref name="zeroed"/> pages are in, and who waits for them was woken.</summary>
    public int Zero(PageRange range, out long zeroed)
    {
        _watch?.Wrote(range);
        var address = ram.AddressOf(range.First);
        zeroed = 0;
        int errno;
        do
        {
            long at = zeroed << PageIndex.PageShift;
            var part = uffds.First(new(range.First + zeroed, range.Count - zeroed), out var uffd);
            errno = uffd.ZeroPage(address + (ulong)at, (ulong)part.Bytes, UffdZeroMode.None, out long bytes);
            zeroed += bytes >> PageIndex.PageShift;
        }
        while ((errno == 0 || Again(errno)) && zeroed < range.Count);
        return errno;
    }

    public int Protect(PageRange range) => WriteProtect(range, protect: true);

    /// <summary>Lifts write protection and wakes who waits. Only for the owner of Busy pages, see <see cref="PageTable"/>.</summary>
    public int Unprotect(PageRange range)
    {
        _watch?.Wrote(range);
        return WriteProtect(range, protect: false);
    }

    public int Wake(PageRange range)
    {
        while (true)
        {
            var part = uffds.First(range, out var uffd);
            int errno = uffd.Wake(ram.AddressOf(part.First), (ulong)part.Bytes);
            Again(errno);
            if (part.Count == range.Count)
            {
                return errno;
            }

            range = new(part.End, range.End - part.End);
        }
    }

    /// <summary>From now on whoever touches this missing page gets a memory error. EEXIST: it is so already, or there is a page. EINVAL: Linux before 6.6.</summary>
    public int Poison(long page)
    {
        if (!memoryErrors)
        {
            return Errno.EINVAL;
        }

        var uffd = uffds.Of(page);
        var address = ram.AddressOf(page);
        int errno;
        do
        {
            errno = uffd.Poison(address, PageIndex.PageSize, UffdPoisonMode.None, out _);
        }
        while (Again(errno));
        if (errno == Errno.EEXIST)
        {
            // Not a page: the mark that it was write-protected when it left. The kernel poisons only where there is nothing at all.
            uffd.WriteProtect(address, PageIndex.PageSize, protect: false, wake: false);
            errno = uffd.Poison(address, PageIndex.PageSize, UffdPoisonMode.None, out _);
        }

        return errno;
    }

    /// <summary>Reads content from the RAM file; never through a mapping, where a fault would wait for ourselves.</summary>
    public int Read(PageRange range, byte* destination)
    {
        var block = ram.BlockOf(range.First);
        nint read = SparseFile.Read(block.File, destination, (nuint)range.Bytes, (range.First - block.FirstPage) << PageIndex.PageShift);
        return read == (nint)range.Bytes ? 0 : read < 0 ? (int)-read : Errno.EIO;
    }

    /// <summary>Gives the pages' memory back.</summary>
    public int Punch(PageRange range)
    {
        _watch?.Wrote(range);
        var block = ram.BlockOf(range.First);
        return SparseFile.PunchHole(block.File, (range.First - block.FirstPage) << PageIndex.PageShift, range.Bytes);
    }

    /// <summary>After an error a part of the range may be done.</summary>
    private int WriteProtect(PageRange range, bool protect)
    {
        while (true)
        {
            var part = uffds.First(range, out var uffd);
            int errno;
            do
            {
                errno = uffd.WriteProtect(ram.AddressOf(part.First), (ulong)part.Bytes, protect, wake: !protect);
            }
            while (Again(errno));
            if (errno != 0 || part.Count == range.Count)
            {
                return errno;
            }

            range = new(part.End, range.End - part.End);
        }
    }

    private bool Again(int errno)
    {
        if (errno is Errno.ESRCH or Errno.ENOENT)
        {
            _ended = true;
        }

        if (errno != Errno.EAGAIN)
        {
            return false;
        }

        // It lasts while QEMU changes its address space.
        Thread.Yield();
        return true;
    }
}
