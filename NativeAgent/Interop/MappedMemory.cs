using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Interop;

/// <summary>
/// A mapping in this process: a buffer outside the garbage collector's reach, or a window on a file. Owns it; whoever disposes
/// must have stopped the threads that use it. Never map a RAM file on a host where its guest is paged: a plain load could
/// fault on a page that only this process can bring.
/// </summary>
internal sealed unsafe class MappedMemory : IDisposable
{
    private const int ProtRead = 1;
    private const int ProtWrite = 2;
    private const int MapShared = 0x01;
    private const int MapPrivate = 0x02;
    private const int MapAnonymous = 0x20;
    private const int MapNoReserve = 0x4000;
    private const int MapPopulate = 0x8000;

    private byte* _address;

    private MappedMemory(void* address, nuint bytes)
    {
        _address = (byte*)address;
        Bytes = bytes;
    }

    /// <summary>At a page.</summary>
    public byte* Address => _address;

    public nuint Bytes { get; }

    /// <summary>Zeroed memory at a page boundary.</summary>
    /// <param name="populate">Take all of it now, so that no later use of it can fault.</param>
    /// <exception cref="KernelException">ENOMEM.</exception>
    public static MappedMemory Anonymous(nuint bytes, bool populate = false)
        => Map(bytes, ProtRead | ProtWrite, MapPrivate | MapAnonymous | (populate ? MapPopulate : MapNoReserve), -1, 0);

    /// <summary>A shared window on a file. Touching a hole through it allocates the page.</summary>
    /// <exception cref="KernelException">The file can't be mapped.</exception>
    public static MappedMemory File(SafeFileHandle file, long offset, nuint bytes, bool write)
    {
        bool added = false;
        try
        {
            file.DangerousAddRef(ref added);
            return Map(bytes, write ? ProtRead | ProtWrite : ProtRead, MapShared, (int)file.DangerousGetHandle(), offset);
        }
        finally
        {
            if (added)
            {
                file.DangerousRelease();
            }
        }
    }

    /// <summary><c>madvise(2)</c> on a part of it. Returns an errno, 0 when done.</summary>
    public int Advise(nuint offset, nuint bytes, MemoryAdvice advice)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(bytes, Bytes);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, Bytes - bytes);
        return Libc.MAdvise(_address + offset, bytes, (int)advice) == 0 ? Errno.None : Marshal.GetLastPInvokeError();
    }

    public void Dispose()
    {
        if (_address != null)
        {
            _ = Libc.MUnmap(_address, Bytes);
            _address = null;
        }
    }

    private static MappedMemory Map(nuint bytes, int protection, int flags, int fd, long offset)
    {
        void* address = Libc.MMap(null, bytes, protection, flags, fd, offset);
        return (nint)address == -1
            ? throw KernelException.Of(Marshal.GetLastPInvokeError(), $"map {bytes} bytes of memory")
            : new MappedMemory(address, bytes);
    }
}

/// <summary><c>MADV_*</c></summary>
internal enum MemoryAdvice
{
    Sequential = 2,
    WillNeed = 3,
    DontNeed = 4,
    HugePage = 14,
    NoHugePage = 15,
}
