using FCtrans.Agent.Memory;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Interop;

/// <summary>
/// Writes whole pages into files of tmpfs that others write to at the same time. <c>write(2)</c> lets one thread at a time into a file, for as
/// long as the kernel takes to find and fill memory. But most of what a migration brings falls into holes, and those userfaultfd's copy fills
/// without that lock, through a window of our own onto the file; nor is the page zeroed first, as by a fault in a mapping. What is no hole gets
/// a plain write, and so does everything where the kernel or the file does not allow this.
/// <para>
/// Nobody touches the window itself: a fault in it would have no one to answer. Nor may it outlive the work: <see cref="Release"/> when no more
/// comes for the moment, since a RAM file must not stay mapped when its guest is paged. One thread's.
/// </para>
/// </summary>
/// <param name="writing">Held for a plain write: on the kernel's lock the others would spin.</param>
internal sealed unsafe class HoleFiller(Lock writing) : IDisposable
{
    /// <summary>So much of the file is counted as this process's memory meanwhile, and its page tables take a 512th of it.</summary>
    private const long WindowBytes = 8 << 20;

    /// <summary>Below this a window costs more than it saves.</summary>
    private const long LeastBytes = 16 * PageIndex.PageSize;

    private Userfaultfd? _uffd;
    private MappedMemory? _window;
    private SafeFileHandle? _windowOf;
    private long _windowAt;

    /// <summary>Files that have no short way; null stands for: none has.</summary>
    private List<SafeFileHandle>? _unable = [];

    /// <summary>Bytes that went into holes by the short way.</summary>
    public long Filled { get; private set; }

    /// <summary>How often a window was laid onto a file.</summary>
    public long Windows { get; private set; }

    /// <summary>Writes all of <paramref name="bytes"/>; -errno on an error (a part may be written).</summary>
    /// <param name="file">Kept open for as long as this lives.</param>
    /// <param name="bytes">Whole pages, within the file.</param>
    /// <param name="offset">At a page.</param>
    /// <param name="hole">Whether the first page is likely to be a hole. Where it is none the short way costs, and brings nothing.</param>
    public nint Write(SafeFileHandle file, byte* content, long bytes, long offset, bool hole)
    {
        long filled = hole && bytes >= LeastBytes ? Fill(file, content, bytes, offset) : 0;
        if (filled == bytes)
        {
            return (nint)bytes;
        }

        nint written;
        lock (writing)
        {
            written = SparseFile.Write(file, content + filled, (nuint)(bytes - filled), offset + filled);
        }

        return written < 0 ? written : (nint)filled + written;
    }

    /// <summary>No file is mapped any more, until the next write.</summary>
    public void Release()
    {
        _windowOf = null;
        _window?.Dispose();
        _window = null;
    }

    public void Dispose()
    {
        Release();
        _uffd?.Dispose();
    }

    /// <summary>Fills holes up to the first page that is none, or that can't be had. Returns the bytes done.</summary>
    private long Fill(SafeFileHandle file, byte* content, long bytes, long offset)
    {
        long done = 0;
        while (done < bytes && TryWindow(file, offset + done))
        {
            long at = offset + done - _windowAt;
            long part = Math.Min(bytes - done, WindowBytes - at);
            int errno = _uffd!.Copy(new((ulong)(_window!.Address + at)), content + done, (ulong)part, UffdCopyMode.DontWake, out long copied);
            done += copied;
            if (errno != Errno.None && copied == 0)
            {
                // Whatever else it is than a page that is there, the write says it better.
                break;
            }
        }

        Filled += done;
        return done;
    }

    private bool TryWindow(SafeFileHandle file, long offset)
    {
        if (_unable is null || _unable.Contains(file))
        {
            return false;
        }

        if (_windowOf == file && offset >= _windowAt && offset < _windowAt + WindowBytes)
        {
            return true;
        }

        Release();
        try
        {
            _uffd ??= OpenUserfaultfd();
        }
        catch (KernelException e)
        {
            _unable = IsFinal(e.Errno) ? null : _unable;
            return false;
        }

        try
        {
            long at = offset & -WindowBytes;
            _window = MappedMemory.File(file, at, (nuint)WindowBytes, write: true);
            _uffd.Register(new((ulong)_window.Address), WindowBytes, UffdRegisterMode.Missing);
            (_windowOf, _windowAt) = (file, at);
            Windows++;
            return true;
        }
        catch (KernelException e)
        {
            Release();
            if (IsFinal(e.Errno))
            {
                _unable.Add(file);
            }

            return false;
        }
    }

    /// <summary>Not a file of tmpfs, or no userfaultfd for us. Else it may work the next time: memory that is short now may not be then.</summary>
    private static bool IsFinal(int errno) =>
        errno is Errno.EPERM or Errno.EACCES or Errno.ENOSYS or Errno.ENOTTY or Errno.EINVAL or Errno.EOPNOTSUPP or Errno.ENODEV;

    private static Userfaultfd OpenUserfaultfd()
    {
        // No fault comes by it: so the kernel asks for no privilege.
        var uffd = Userfaultfd.Open(UffdRequest.UserModeOnly);
        try
        {
            uffd.Api(UffdFeatures.None);
            return uffd;
        }
        catch
        {
            uffd.Dispose();
            throw;
        }
    }
}
