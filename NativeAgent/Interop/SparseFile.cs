using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Interop;

/// <summary>
/// Files with holes: a guest's RAM file, a sub-host's store. Stateless; safe from any thread. <c>SEEK_DATA</c> and
/// <c>SEEK_HOLE</c> move the position of the open file, which nothing here or elsewhere uses.
/// </summary>
internal static unsafe class SparseFile
{
    private const int SeekData = 3;
    private const int SeekHole = 4;
    private const int KeepSize = 1;
    private const int PunchHoleMode = 2;

    /// <summary>Reads all of <paramref name="bytes"/>, or fewer only at the end of the file; -errno on an error. A hole reads as zeros and stays a hole.</summary>
    public static nint Read(SafeFileHandle file, void* buffer, nuint bytes, long offset)
    {
        nuint done = 0;
        while (done < bytes)
        {
            nint count = Libc.PRead(file, (byte*)buffer + done, bytes - done, offset + (long)done);
            if (count == 0)
            {
                break;
            }

            if (count < 0)
            {
                int errno = Marshal.GetLastPInvokeError();
                if (errno == Errno.EINTR)
                {
                    continue;
                }

                return -errno;
            }

            done += (nuint)count;
        }

        return (nint)done;
    }

    /// <summary>Writes all of <paramref name="bytes"/>; -errno on an error (a part may be written).</summary>
    public static nint Write(SafeFileHandle file, void* buffer, nuint bytes, long offset)
    {
        nuint done = 0;
        while (done < bytes)
        {
            nint count = Libc.PWrite(file, (byte*)buffer + done, bytes - done, offset + (long)done);
            if (count < 0)
            {
                int errno = Marshal.GetLastPInvokeError();
                if (errno == Errno.EINTR)
                {
                    continue;
                }

                return -errno;
            }

            done += (nuint)count;
        }

        return (nint)done;
    }

    /// <summary>Gives the memory of whole pages back; they read as zeros. Returns an errno, 0 when done.</summary>
    public static int PunchHole(SafeFileHandle file, long offset, long bytes)
    {
        while (Libc.FAllocate(file, PunchHoleMode | KeepSize, offset, bytes) != 0)
        {
            int errno = Marshal.GetLastPInvokeError();
            if (errno != Errno.EINTR)
            {
                return errno;
            }
        }

        return Errno.None;
    }

    /// <summary>Makes the file that long, with all its memory: no later write can fail for want of it.</summary>
    /// <exception cref="KernelException">There is not so much.</exception>
    public static void Allocate(SafeFileHandle file, long bytes)
    {
        while (Libc.FAllocate(file, 0, 0, bytes) != 0)
        {
            int errno = Marshal.GetLastPInvokeError();
            if (errno != Errno.EINTR)
            {
                throw KernelException.Of(errno, $"reserve {bytes} bytes for a file");
            }
        }
    }

    /// <summary>Sets the length without allocating anything.</summary>
    /// <exception cref="KernelException">The file can't have that length.</exception>
    public static void SetLength(SafeFileHandle file, long bytes)
    {
        if (Libc.FTruncate(file, bytes) != 0)
        {
            throw KernelException.Of(Marshal.GetLastPInvokeError(), $"set a file's length to {bytes} bytes");
        }
    }

    /// <summary>The offset of the next data at or after <paramref name="from"/>; -1 when there is only a hole up to the end.</summary>
    /// <exception cref="KernelException">Not a file that can be sought.</exception>
    public static long NextData(SafeFileHandle file, long from) => Seek(file, from, SeekData);

    /// <summary>The offset of the next hole at or after <paramref name="from"/>, the end of the file being one; -1 from the end on.</summary>
    /// <exception cref="KernelException">Not a file that can be sought.</exception>
    public static long NextHole(SafeFileHandle file, long from) => Seek(file, from, SeekHole);

    /// <summary>How much memory (or disk) the file takes, in bytes.</summary>
    /// <exception cref="KernelException">The handle is not of an open file.</exception>
    public static long AllocatedBytes(SafeFileHandle file) => Status(file).Blocks512 * 512;

    /// <exception cref="KernelException">The handle is not of an open file.</exception>
    public static FileStatus Status(SafeFileHandle file)
    {
        FileStatus status;
        if (Libc.FStat(file, &status) != 0)
        {
            throw KernelException.Of(Marshal.GetLastPInvokeError(), "look at a file");
        }

        return status;
    }

    /// <summary>Opens a path as it is (also magic links such as those in /proc/PID/fd, which .NET's own open would examine first).</summary>
    /// <exception cref="KernelException">ENOENT, EACCES, …</exception>
    public static SafeFileHandle Open(string path, bool write)
    {
        int fd = Libc.Open(path, (write ? OpenFlag.ReadWrite : OpenFlag.ReadOnly) | OpenFlag.CloseOnExec, 0);
        if (fd < 0)
        {
            throw KernelException.Of(Marshal.GetLastPInvokeError(), $"open {path}");
        }

        return new SafeFileHandle(fd, ownsHandle: true);
    }

    private static long Seek(SafeFileHandle file, long from, int whence)
    {
        long offset = Libc.LSeek(file, from, whence);
        if (offset >= 0)
        {
            return offset;
        }

        int errno = Marshal.GetLastPInvokeError();
        return errno == Errno.ENXIO ? -1 : throw new KernelException("look for data in a sparse file", errno);
    }
}
