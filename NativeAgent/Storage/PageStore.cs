using System.Numerics;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Storage;

/// <summary>The store can't take these pages. The message says why and what to do.</summary>
internal sealed class StoreFullException(string message) : IOException(message);

/// <summary>A store that had pages is not there any more. The message says what to do.</summary>
internal sealed class StoreGoneException(string message) : IOException(message);

/// <summary>
/// A sub-host's pages of one VM: a sparse file in tmpfs with the offsets of the VM's RAM, so that a hole is "not here" and the file alone
/// is the whole state: it outlives the process, and the next one reads from it which pages it has.
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
    private readonly Lock _writing = new();
    private long _stored;

    private PageStore(SafeFileHandle file, string path, long pages, long limitPages)
    {
        _file = file;
        Path = path;
        Pages = pages;
        LimitPages = limitPages;
        _held = new(pages);
    }

    public string Path { get; }

    /// <summary>Pages of the VM.</summary>
    public long Pages { get; }

    /// <summary>The most pages that it takes.</summary>
    public long LimitPages { get; }

    /// <summary>Pages that it has.</summary>
    public long StoredPages => Interlocked.Read(ref _stored);

    /// <summary>Opens the store in <paramref name="directory"/>, which exists, or makes it. Takes it for this process alone.</summary>
    /// <param name="directory">On a tmpfs: pages on a disk would be slow, and counted against nobody's memory.</param>
    /// <param name="limitPages">At least 1; the VM's size where there is none.</param>
    /// <param name="mustExist">Others rely on what it has already: an empty one in its place would have the VM take lost pages for zeros.</param>
    /// <exception cref="StoreGoneException">It must exist, and does not, or not as it was made.</exception>
    /// <exception cref="IOException">It is in use, is another VM's, or can't be made.</exception>
    public static PageStore Open(string directory, long pages, long limitPages, bool mustExist = false)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(pages, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(limitPages, 1);
        if (!OperatingSystem.IsLinux())
        {
            throw new PlatformNotSupportedException();
        }

        string path = System.IO.Path.Combine(directory, FileName);
        SafeFileHandle handle;
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
            var store = new PageStore(handle, path, pages, Math.Min(limitPages, pages));
            store.FindHeld(bytes);
            return store;
        }
        catch
        {
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
        long added = 0;
        for (long page = range.First; page < range.End; page++)
        {
            added += Has(page) ? 0 : 1;
        }

        if (added > 0 && Interlocked.Add(ref _stored, added) > LimitPages)
        {
            Interlocked.Add(ref _stored, -added);
            throw new StoreFullException(
                $"full: the store's limit of {LimitPages << PageIndex.PageShift >> 20} MiB is reached. Give this sub-host more memory for the VM, or add another.");
        }

        nint written = filler.Write(_file, content, range.Bytes, range.First << PageIndex.PageShift, hole: !Has(range.First));
        if (written != (nint)range.Bytes)
        {
            Interlocked.Add(ref _stored, -added);
            // What was written of new pages must not be found by the next process that opens the file.
            for (long page = range.First; page < range.End; page++)
            {
                if (!Has(page))
                {
                    _ = SparseFile.PunchHole(_file, page << PageIndex.PageShift, PageIndex.PageSize);
                }
            }

            throw new StoreFullException(
                $"full: the store could not be written ({Errno.Name((int)-written)}). {Errno.Remedy((int)-written)}");
        }

        if (added > 0)
        {
            Mark(range, held: true);
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

        nint read = SparseFile.Read(_file, destination, PageIndex.PageSize, page << PageIndex.PageShift);
        return read == PageIndex.PageSize ? true
            : throw new IOException($"The store {Path} can't be read at page {page} ({(read < 0 ? Errno.Name((int)-read) : "it is too short")}).");
    }

    /// <summary>Forgets pages and gives their memory back. Returns how many there were.</summary>
    /// <exception cref="KernelException">Their memory can't be given back; they are forgotten all the same.</exception>
    public long Discard(PageRange range)
    {
        long removed = Mark(range, held: false);
        Interlocked.Add(ref _stored, -removed);
        if (removed > 0)
        {
            int errno = SparseFile.PunchHole(_file, range.First << PageIndex.PageShift, range.Bytes);
            if (errno != 0)
            {
                throw new KernelException($"give back memory of {Path}", errno);
            }
        }

        return removed;
    }

    /// <summary>The next pages held, from <paramref name="from"/> on; false when there are no more.</summary>
    public bool NextHeld(long from, out PageRange run) => _held.NextRun(from, long.MaxValue, out run);

    public void Dispose()
    {
        _file.Dispose();
        _held.Dispose();
    }

    private static StoreGoneException Gone(string path, string how) => new(
        $"The store that this sub-host had for the VM {how} ({path}), and with it the memory that it held. "
        + "Remove-VmSubHost -Lost has the VM go on without it: the guest gets a memory error where it touches what only this host had.");

    private void FindHeld(long bytes)
    {
        long at = 0;
        while (at < bytes && (at = SparseFile.NextData(_file, at)) >= 0)
        {
            long end = SparseFile.NextHole(_file, at);
            var run = new PageRange(at >> PageIndex.PageShift, (end - at) >> PageIndex.PageShift);
            _held.Fill(run, true);
            _stored += run.Count;
            at = end;
        }
    }

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
