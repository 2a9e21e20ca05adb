using FCtrans.Agent.Memory;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Interop;

/// <summary>
/// Writes whole pages into files of tmpfs that others write to at the same time. <c>write(2)</c> lets one thread at a time into a file, for as
/// long as the kernel takes to find and fill memory. But most of what a migration brings falls into holes, and those userfaultfd's copy fills
/// without that lock, through a window of our own onto the file; nor is the page zeroed first, as by a fault in a mapping. What is no hole gets
/// a plain write, and so does everything where the kernel or the file does not allow this.
/// <para>Nobody touches the window itself: a fault in it would have no one to answer. One thread's.</para>
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
    private bool _unable;

    /// <summary>Bytes that went into holes by the short way.</summary>
    public long Filled { get; private set; }

    /// <summary>Writes all of <paramref name="bytes"/>; -errno on an error (a part may be written).</summary>
    /// <param name="file">Kept open for as long as this lives.</param>
    /// <param name="bytes">Whole pages, within the file.</param>
    /// <param name="offset">At a page.</param>
    public nint Write(SafeFileHandle file, byte* content, long bytes, long offset)
    {
        long filled = bytes >= LeastBytes ? Fill(file, content, bytes, offset) : 0;
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

    public void Dispose()
    {
        _window?.Dispose();
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
        if (_unable)
        {
            return false;
        }

        if (_windowOf == file && offset >= _windowAt && offset < _windowAt + WindowBytes)
        {
            return true;
        }

        _windowOf = null;
        _window?.Dispose();
        _window = null;
        try
        {
            if (_uffd is null)
            {
                // No fault comes by it: so the kernel asks for no privilege.
                _uffd = Userfaultfd.Open(UffdRequest.UserModeOnly);
                _uffd.Api(UffdFeatures.None);
            }

            long at = offset & -WindowBytes;
            _window = MappedMemory.File(file, at, (nuint)WindowBytes, write: true);
            _uffd.Register(new((ulong)_window.Address), WindowBytes, UffdRegisterMode.Missing);
            (_windowOf, _windowAt) = (file, at);
            return true;
        }
        catch (KernelException)
        {
            // Not a file of tmpfs, or no userfaultfd for us.
            _unable = true;
            return false;
        }
    }
}
