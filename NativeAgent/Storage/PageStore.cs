using System.Numerics;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Storage;

/// <summary>The store can't take these pages. The message says why and what to do.</summary>
internal sealed class StoreFullException(string message) : IOException(message);

/// <summary>A store that had pages is not there any more. The message says what to do.</summary>
internal sealed class StoreGoneException(string message) : IOException(message);

/// <summary>
/// A sub-host's pages of one VM: a sparse file in tmpfs with the offsets of the VM's RAM, so that a hole is "not here" and the file alone
/// is the whole state: it outlives the process, and the next one reads from it which pages it has. Pages that came packed are kept so, in a
/// file beside it (<see cref="PackedPages"/>); a page is in one of the two.
/// <para>
/// Safe from several threads, one per page: the protocol never has two connections work on the same page at once. A page's bit in
/// memory is set after its content is in the file and cleared before it leaves, so a reader never sees half of one.
/// </para>
/// A process killed in the middle of a write leaves a page that it never acknowledged; its owner still has it and sends it again.
/// </summary>
internal sealed unsafe class PageStore : IHeldPages, IDisposable
{
    /// <summary>Of the store in its directory.</summary>
    public const string FileName = "pages";

    private readonly SafeFileHandle _file;
    private readonly PageBitmap _held;
    private readonly PackedPages _packed;
    private readonly Lock _writing = new();
    private long _stored;

    private PageStore(SafeFileHandle file, PackedPages packed, string path, long pages, long limitPages)
    {
        _file = file;
        _packed = packed;
        Path = path;
        Pages = pages;
        _held = new(pages);
        FindHeld();
        LimitPages = Math.Min(limitPages, Math.Max(1, RoomPages));
    }

    public string Path { get; }

    /// <summary>Pages of the VM.</summary>
    public long Pages { get; }

    /// <summary>The most pages that it takes. One that is packed counts like any other: the guest may change it, and then it comes back whole.</summary>
    public long LimitPages { get; }

    /// <summary>Pages that it has.</summary>
    public long StoredPages => Interlocked.Read(ref _stored);

    /// <summary>Opens the store in <paramref name="directory"/>, which exists, or makes it. Takes it for this process alone.</summary>
    /// <param name="directory">On a tmpfs: pages on a disk would be slow, and counted against nobody's memory.</param>
    /// <param name="limitPages">At least 1; the VM's size where there is none. Never more than there is memory for, with what the store has already.</param>
    /// <param name="mustExist">Others rely on what it has already: an empty one in its place would have the VM take lost pages for zeros.</param>
    /// <param name="mustHavePacked">Likewise of its packed pages, which the store of an earlier agent has not.</param>
    /// <exception cref="StoreGoneException">It must exist, and does not, or not as it was made.</exception>
    /// <exception cref="IOException">It is in use, is another VM's, or can't be made.</exception>
    public static PageStore Open(string directory, long pages, long limitPages, bool mustExist = false, bool mustHavePacked = false)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(pages, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(limitPages, 1);
        if (!OperatingSystem.IsLinux())
        {
            throw new PlatformNotSupportedException();
        }

        string path = System.IO.Path.Combine(directory, FileName);
        SafeFileHandle handle;
        PackedPages? packed = null;
        try
        {
            // FileShare.None is an advisory lock: a second worker on the same store fails here.
            handle = File.OpenHandle(path, mustExist ? FileMode.Open : FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (Exception e) when (mustExist && e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw Gone(path, "is not there any more");
        }

        try
        {
            File.SetUnixFileMode(handle, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            long bytes = pages << PageIndex.PageShift;
            long length = RandomAccess.GetLength(handle);
            if (mustExist && length != bytes)
            {
                // A new one gets its length before anybody is told of it.
                throw Gone(path, $"is {length} bytes long instead of {bytes}");
            }

            if (length != 0 && length != bytes)
            {
                throw new IOException(
                    $"{path} is {length} bytes long, but the VM has {bytes} bytes of memory: it is the store of another VM. Remove it if nothing needs it.");
            }

            SparseFile.SetLength(handle, bytes);
            try
            {
                packed = PackedPages.Open(directory, pages, mustHavePacked);
            }
            catch (FileNotFoundException)
            {
                throw Gone(System.IO.Path.Combine(directory, PackedPages.FileName), "is not whole any more");
            }

            return new PageStore(handle, packed, path, pages, Math.Min(limitPages, pages));
        }
        catch
        {
            packed?.Dispose();
            handle.Dispose();
            throw;
        }
    }

    public bool Has(long page) => (Word(page) >> (int)(page & 63) & 1) != 0;

    /// <summary>For a thread that puts many pages: others may do so at the same time.</summary>
    public HoleFiller OpenFiller() => new(_writing);

    /// <summary>Stores pages, over what there was.</summary>
    /// <param name="content">As many pages as <paramref name="range"/> has.</param>
    /// <param name="filler">This thread's, of this store.</param>
    /// <exception cref="StoreFullException">The limit is reached or the host's memory is full; none of the new pages is kept.</exception>
    public void Put(PageRange range, byte* content, HoleFiller filler)
    {
        long added = Reserve(range);
        // Over a page that is packed, the file has a hole.
        bool hole = !Has(range.First) || _packed.Has(range.First);
        nint written = filler.Write(_file, content, range.Bytes, range.First << PageIndex.PageShift, hole);
        if (written != (nint)range.Bytes)
        {
            Interlocked.Add(ref _stored, -added);
            // What was written of new pages must not be found by the next process that opens the file.
            for (long page = range.First; page < range.End; page++)
            {
                if (!Has(page) || _packed.Has(page))
                {
                    Punch(new(page, 1));
                }
            }

            throw NotWritten((int)-written);
        }

        RemovePacked(range);
        if (added > 0)
        {
            Mark(range, held: true);
        }
    }

    /// <summary>Stores pages as they came packed, over what there was.</summary>
    /// <param name="range">At most <see cref="RowCodec.MaxPages"/>.</param>
    /// <param name="rows">What <see cref="RowCodec"/> made of them; from a peer.</param>
    /// <param name="unpacked">Room for as many pages.</param>
    /// <param name="filler">This thread's, of this store.</param>
    /// <exception cref="ProtocolException">It is not exactly these pages; nothing is kept.</exception>
    /// <exception cref="StoreFullException">The limit is reached or the host's memory is full; a part of the pages may be kept.</exception>
    public void PutRows(PageRange range, ReadOnlySpan<byte> rows, Span<byte> unpacked, HoleFiller filler)
    {
        var runs = new RowRuns(range, rows);
        while (runs.Next(out var run, out var part, out bool fit))
        {
            if (fit)
            {
                PutPacked(run, part);
                continue;
            }

            RowCodec.Decode(part, unpacked[..(int)run.Bytes]);
            fixed (byte* content = unpacked)
            {
                Put(run, content, filler);
            }
        }
    }

    /// <summary>Reads one page; false when it is not here.</summary>
    /// <exception cref="IOException">The file can't be read.</exception>
    public bool TryGet(long page, byte* destination)
    {
        if (!Has(page))
        {
            return false;
        }

        if (_packed.Has(page))
        {
            int errno = _packed.TryGet(page, destination, out bool here);
            if (here)
            {
                return true;
            }

            // One that a connection which was given up asks for may have been replaced just now.
            if (errno != Errno.None || _packed.Has(page))
            {
                throw new IOException($"The store {Path} can't be read at packed page {page} ({Errno.Name(errno)}).");
            }
        }

        nint read = SparseFile.Read(_file, destination, PageIndex.PageSize, page << PageIndex.PageShift);
        return read == PageIndex.PageSize ? true
            : throw new IOException($"The store {Path} can't be read at page {page} ({(read < 0 ? Errno.Name((int)-read) : "it is too short")}).");
    }

    /// <summary>Forgets pages and gives their memory back. Returns how many there were.</summary>
    public long Discard(PageRange range)
    {
        long removed = Mark(range, held: false);
        Interlocked.Add(ref _stored, -removed);
        if (removed > 0)
        {
            RemovePacked(range);
            Punch(range);
        }

        return removed;
    }

    /// <summary>The next pages held, from <paramref name="from"/> on; false when there are no more.</summary>
    public bool NextHeld(long from, out PageRange run) => _held.NextRun(from, long.MaxValue, out run);

    public void Dispose()
    {
        _file.Dispose();
        _held.Dispose();
        _packed.Dispose();
    }

    private static StoreGoneException Gone(string path, string how) => new(
        $"The store that this sub-host had for the VM {how} ({path}), and with it the memory that it held. "
        + "Remove-VmSubHost -Lost has the VM go on without it: the guest gets a memory error where it touches what only this host had.");

    /// <summary>What this host has memory for, with what the store takes already.</summary>
    private long RoomPages =>
        ((new DriveInfo(System.IO.Path.GetDirectoryName(Path)!).AvailableFreeSpace + SparseFile.AllocatedBytes(_file)) >> PageIndex.PageShift)
        + _packed.FilePages;

    private void FindHeld()
    {
        long bytes = Pages << PageIndex.PageShift;
        long at = 0;
        while (at < bytes && (at = SparseFile.NextData(_file, at)) >= 0)
        {
            long end = SparseFile.NextHole(_file, at);
            var run = new PageRange(at >> PageIndex.PageShift, (end - at) >> PageIndex.PageShift);
            // In both files: killed before it had left the one. Its owner has not heard that it is stored, and sends it again.
            _packed.Remove(run);
            _held.Fill(run, true);
            at = end;
        }

        _packed.AddTo(_held);
        _stored = _held.Count();
    }

    /// <summary>Counts the pages of <paramref name="range"/> that are new as stored, if there is room; returns how many.</summary>
    private long Reserve(PageRange range)
    {
        long added = range.Count - _held.CountIn(range);
        if (added > 0 && Interlocked.Add(ref _stored, added) > LimitPages)
        {
            Interlocked.Add(ref _stored, -added);
            throw new StoreFullException(
                $"full: the store's limit of {LimitPages << PageIndex.PageShift >> 20} MiB is reached. Give this sub-host more memory for the VM, or add another.");
        }

        return added;
    }

    private void PutPacked(PageRange range, ReadOnlySpan<byte> rows)
    {
        long added = Reserve(range);
        // Those that are here as they are give way.
        bool whole = added < range.Count && AnyWhole(range);
        int errno = _packed.Put(range, rows);
        if (errno != 0)
        {
            Interlocked.Add(ref _stored, -added);
            throw NotWritten(errno);
        }

        if (whole)
        {
            Punch(range);
        }

        Mark(range, held: true);
    }

    private void Punch(PageRange range)
    {
        int errno = SparseFile.PunchHole(_file, range.First << PageIndex.PageShift, range.Bytes);
        if (errno != 0)
        {
            End($"give back memory of {Path}", errno);
        }
    }

    private void RemovePacked(PageRange range)
    {
        try
        {
            _packed.Remove(range);
        }
        catch (KernelException e)
        {
            End(e.Message, e.Errno);
        }
    }

    /// <summary>
    /// What the files have is no longer what the bits say, and the next one to open them would go by the files: so that is now, before anything
    /// is acknowledged, and the owner sends again what was not.
    /// </summary>
    private static void End(string what, int errno) =>
        Environment.FailFast($"This worker has to begin again, since it could not {what} ({Errno.Name(errno)}).");

    private bool AnyWhole(PageRange range)
    {
        for (long page = range.First; page < range.End; page++)
        {
            if (Has(page) && !_packed.Has(page))
            {
                return true;
            }
        }

        return false;
    }

    private static StoreFullException NotWritten(int errno) =>
        new($"full: the store could not be written ({Errno.Name(errno)}). {Errno.Remedy(errno)}");

    private ulong Word(long page) => Volatile.Read(ref _held.Words(page >> 6, 1)[0]);

    /// <summary>Sets or clears the bits of a range; returns how many changed. Other threads change other bits of the same words.</summary>
    private long Mark(PageRange range, bool held)
    {
        long changed = 0;
        for (long page = range.First; page < range.End;)
        {
            long next = Math.Min(range.End, (page | 63) + 1);
            ulong mask = (ulong.MaxValue << (int)(page & 63)) & (ulong.MaxValue >> (int)(63 - ((next - 1) & 63)));
            ref ulong word = ref _held.Words(page >> 6, 1)[0];
            if (held)
            {
                changed += BitOperations.PopCount(mask & ~Interlocked.Or(ref word, mask));
            }
            else if ((Volatile.Read(ref word) & mask) != 0)
            {
                changed += BitOperations.PopCount(mask & Interlocked.And(ref word, ~mask));
            }

            page = next;
        }

        return changed;
    }
}
