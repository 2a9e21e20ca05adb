using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Storage;

/// <summary>
/// Pages as <see cref="RowCodec"/> has them, and as they came, beside the file that has the others whole: a sub-host's store, or the VM's RAM. A
/// fifteenth of the memory, and for the kernel a fifteenth of the work, which is what limits the migration of a large idle guest. Each has a slot
/// of its own in a sparse file, at a place that its number gives, so that this file alone is the whole state: a slot that begins with 0 is empty.
/// <para>
/// Safe from several threads, one per page. Fifteen pages share a page of the file: whoever changes slots holds the lock.
/// </para>
/// </summary>
internal sealed unsafe class PackedPages : IPageContent, IDisposable
{
    /// <summary>In its directory.</summary>
    public const string FileName = "packed";

    /// <summary>The longest encoding that has room: with two exceptions. Few of the pages that the codec makes small have more.</summary>
    public const int SlotBytes = 272;

    /// <summary>No slot lies in two pages of the file, so that each of these can be given back by itself.</summary>
    public const int SlotsPerPage = PageIndex.PageSize / SlotBytes;

    private readonly SafeFileHandle _file;
    private readonly PageBitmap _held;
    private readonly Lock _changing = new();
    private long _filePages;

    /// <summary>A page of the file; under the lock.</summary>
    private readonly byte[] _slots = GC.AllocateArray<byte>(PageIndex.PageSize, pinned: true);

    private PackedPages(SafeFileHandle file, long pages)
    {
        _file = file;
        _held = new(pages);
    }

    /// <summary>Opens the file in a directory on a tmpfs, which exists, or makes it. Takes it for this process alone.</summary>
    /// <param name="pages">Of the VM.</param>
    /// <param name="mustExist">Others rely on what it has: an empty one in its place would have the VM take its pages for zeros.</param>
    /// <exception cref="FileNotFoundException">It must exist, and does not.</exception>
    /// <exception cref="IOException">It is in use, or can't be made.</exception>
    public static PackedPages Open(string directory, long pages, bool mustExist = false)
    {
        var file = File.OpenHandle(
            Path.Combine(directory, FileName), mustExist ? FileMode.Open : FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        try
        {
            if (OperatingSystem.IsLinux())
            {
                File.SetUnixFileMode(file, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            }

            // To whole pages: a last one that the file has only in part could not be punched.
            SparseFile.SetLength(file, (pages + SlotsPerPage - 1) / SlotsPerPage * PageIndex.PageSize);
            var packed = new PackedPages(file, pages);
            packed.FindHeld();
            return packed;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    public bool Has(long page) => (Volatile.Read(ref _held.Words(page >> 6, 1)[0]) >> (int)(page & 63) & 1) != 0;

    /// <summary>Sets the pages that are here in <paramref name="pages"/>.</summary>
    public void AddTo(PageBitmap pages) => pages.Or(_held);

    /// <summary>Keeps pages, over what there was. Returns 0, or an errno and then has none that it had not before.</summary>
    /// <param name="range">Any.</param>
    /// <param name="rows">Their encodings, each measured and found to be at most <see cref="SlotBytes"/> long.</param>
    public int Put(PageRange range, ReadOnlySpan<byte> rows)
    {
        lock (_changing)
        {
            int errno = Errno.None;
            for (var left = range; left.Count > 0 && errno == Errno.None;)
            {
                var part = new PageRange(left.First, Math.Min(left.Count, SlotsPerPage - (left.First % SlotsPerPage)));
                errno = Write(part, ref rows);
                left = new(part.End, left.Count - part.Count);
            }

            CountMemory();
            if (errno == Errno.None)
            {
                _held.Fill(range, true);
                return Errno.None;
            }

            // One that was here before has its old content or the new, each of which is right: the kernel writes a page of the file, or does not.
            for (long page = range.First; page < range.End; page++)
            {
                _ = _held[page] ? Errno.None : Clear(new(page, 1));
            }

            return errno;
        }
    }

    public int TryGet(long page, byte* destination, out bool here)
    {
        here = false;
        if (!Has(page))
        {
            return Errno.None;
        }

        byte* slot = stackalloc byte[SlotBytes];
        nint read = SparseFile.Read(_file, slot, SlotBytes, OffsetOf(page));
        if (read != SlotBytes)
        {
            return read < 0 ? (int)-read : Errno.EIO;
        }

        if (slot[0] == 0)
        {
            // It has left meanwhile.
            return Errno.None;
        }

        slot[0]--;
        if (!RowCodec.TryMeasure(new(slot, SlotBytes), out int length))
        {
            return Errno.EIO;
        }

        RowCodec.Decode(new(slot, length), new(destination, PageIndex.PageSize));
        here = true;
        return Errno.None;
    }

    /// <summary>Pages of the file that take memory.</summary>
    public long FilePages => Volatile.Read(ref _filePages);

    /// <summary>The next run of pages here, from <paramref name="from"/> on; false when there are no more. While nobody changes it.</summary>
    public bool NextRun(long from, out PageRange run) => _held.NextRun(from, long.MaxValue, out run);

    /// <summary>Forgets those of the range that are here, and gives memory back that none is left in.</summary>
    /// <exception cref="KernelException">The file can't be changed; they are forgotten all the same, by this process.</exception>
    public void Remove(PageRange range)
    {
        if (!_held.NextRunIn(range, out _))
        {
            return;
        }

        lock (_changing)
        {
            while (_held.NextRunIn(range, out var run))
            {
                _held.Fill(run, false);
                int errno = Clear(run);
                if (errno != 0)
                {
                    throw new KernelException("remove packed pages", errno);
                }

                range = new(run.End, range.End - run.End);
            }

            CountMemory();
        }
    }

    public void Dispose()
    {
        _file.Dispose();
        _held.Dispose();
    }

    private void CountMemory() => Volatile.Write(ref _filePages, SparseFile.AllocatedBytes(_file) >> PageIndex.PageShift);

    private static long OffsetOf(long page) =>
        (page / SlotsPerPage << PageIndex.PageShift) + (page % SlotsPerPage * SlotBytes);

    /// <summary>Writes slots of one page of the file, and takes their encodings from <paramref name="rows"/>.</summary>
    private int Write(PageRange part, ref ReadOnlySpan<byte> rows)
    {
        int bytes = (int)part.Count * SlotBytes;
        for (int at = 0; at < bytes; at += SlotBytes)
        {
            int length = RowCodec.LengthOf(rows);
            var slot = _slots.AsSpan(at, SlotBytes);
            rows[..length].CopyTo(slot);
            slot[length..].Clear();
            slot[0]++;
            rows = rows[length..];
        }

        fixed (byte* slots = _slots)
        {
            nint written = SparseFile.Write(_file, slots, (nuint)bytes, OffsetOf(part.First));
            return written == bytes ? Errno.None : (int)-written;
        }
    }

    /// <summary>Empties slots whose bits are clear already. Needs no memory: what has none is not written to.</summary>
    private int Clear(PageRange range)
    {
        // The first byte of a slot says all.
        byte empty = 0;
        long end = (range.End + SlotsPerPage - 1) / SlotsPerPage;
        for (long first = range.First / SlotsPerPage; first < end;)
        {
            long free = first;
            while (free < end && IsEmpty(free))
            {
                free++;
            }

            if (free > first)
            {
                int errno = SparseFile.PunchHole(_file, first << PageIndex.PageShift, (free - first) << PageIndex.PageShift);
                if (errno != 0)
                {
                    return errno;
                }

                first = free;
                continue;
            }

            long last = Math.Min(range.End, (first + 1) * SlotsPerPage);
            for (long page = Math.Max(range.First, first * SlotsPerPage); page < last; page++)
            {
                nint written = SparseFile.Write(_file, &empty, 1, OffsetOf(page));
                if (written != 1)
                {
                    return (int)-written;
                }
            }

            first++;
        }

        return Errno.None;
    }

    /// <summary>Whether none of the slots in a page of the file is taken.</summary>
    private bool IsEmpty(long filePage)
    {
        long first = filePage * SlotsPerPage;
        return !_held.NextRunIn(new(first, Math.Min(SlotsPerPage, _held.PageCount - first)), out _);
    }

    private void FindHeld()
    {
        byte* content = stackalloc byte[PageIndex.PageSize];
        for (long at = 0; (at = SparseFile.NextData(_file, at)) >= 0; at += PageIndex.PageSize)
        {
            nint read = SparseFile.Read(_file, content, PageIndex.PageSize, at);
            if (read != PageIndex.PageSize)
            {
                throw new IOException($"{FileName} can't be read ({(read < 0 ? Errno.Name((int)-read) : "it is too short")}).");
            }

            for (int slot = 0; slot < SlotsPerPage; slot++)
            {
                long page = ((at >> PageIndex.PageShift) * SlotsPerPage) + slot;
                if (content[slot * SlotBytes] != 0 && page < _held.PageCount)
                {
                    _held[page] = true;
                }
            }
        }

        CountMemory();
    }
}
