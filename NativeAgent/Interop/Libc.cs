using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Interop;

/// <summary>
/// The C library's functions as they are. All signatures are blittable, and none suppresses the GC transition: each of these
/// calls can block (a page of ours may have to be read, a lock may be taken). The facility classes beside this one are the
/// only callers.
/// </summary>
internal static unsafe partial class Libc
{
    private const string Name = "libc";

    /// <summary><c>FIONBIO</c>: an <see cref="Ioctl"/> with a pointer to an <c>int</c>, 0 for a descriptor whose calls block.</summary>
    internal const nuint FileNonBlocking = 0x5421;

    [LibraryImport(Name, EntryPoint = "ioctl", SetLastError = true)]
    internal static partial int Ioctl(int fd, nuint request, void* argument);

    [LibraryImport(Name, EntryPoint = "syscall", SetLastError = true)]
    internal static partial nint Syscall(nint number, nint a0, nint a1, nint a2, nint a3, nint a4, nint a5);

    [LibraryImport(Name, EntryPoint = "read", SetLastError = true)]
    internal static partial nint Read(int fd, void* buffer, nuint bytes);

    [LibraryImport(Name, EntryPoint = "write", SetLastError = true)]
    internal static partial nint Write(int fd, void* buffer, nuint bytes);

    [LibraryImport(Name, EntryPoint = "recv", SetLastError = true)]
    internal static partial nint Receive(SafeHandle socket, void* buffer, nuint bytes, int flags);

    [LibraryImport(Name, EntryPoint = "send", SetLastError = true)]
    internal static partial nint Send(SafeHandle socket, void* buffer, nuint bytes, int flags);

    [LibraryImport(Name, EntryPoint = "sendmsg", SetLastError = true)]
    internal static partial nint SendMessage(SafeHandle socket, MessageHeader* message, int flags);

    [LibraryImport(Name, EntryPoint = "pread", SetLastError = true)]
    internal static partial nint PRead(SafeFileHandle file, void* buffer, nuint bytes, long offset);

    [LibraryImport(Name, EntryPoint = "pwrite", SetLastError = true)]
    internal static partial nint PWrite(SafeFileHandle file, void* buffer, nuint bytes, long offset);

    [LibraryImport(Name, EntryPoint = "lseek", SetLastError = true)]
    internal static partial long LSeek(SafeFileHandle file, long offset, int whence);

    [LibraryImport(Name, EntryPoint = "fallocate", SetLastError = true)]
    internal static partial int FAllocate(SafeFileHandle file, int mode, long offset, long bytes);

    [LibraryImport(Name, EntryPoint = "ftruncate", SetLastError = true)]
    internal static partial int FTruncate(SafeFileHandle file, long bytes);

    [LibraryImport(Name, EntryPoint = "fstat", SetLastError = true)]
    internal static partial int FStat(SafeFileHandle file, FileStatus* status);

    [LibraryImport(Name, EntryPoint = "fstatfs", SetLastError = true)]
    internal static partial int FStatFs(SafeFileHandle file, FileSystemStatus* status);

    [LibraryImport(Name, EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int Open(string path, int flags, uint mode);

    [LibraryImport(Name, EntryPoint = "close", SetLastError = true)]
    internal static partial int Close(int fd);

    [LibraryImport(Name, EntryPoint = "poll", SetLastError = true)]
    internal static partial int Poll(PollDescriptor* descriptors, nuint count, int timeoutMilliseconds);

    [LibraryImport(Name, EntryPoint = "ppoll", SetLastError = true)]
    internal static partial int PPoll(PollDescriptor* descriptors, nuint count, TimeSpecification* timeout, void* signalMask);

    [LibraryImport(Name, EntryPoint = "eventfd", SetLastError = true)]
    internal static partial int EventFd(uint initial, int flags);

    [LibraryImport(Name, EntryPoint = "mmap", SetLastError = true)]
    internal static partial void* MMap(void* address, nuint bytes, int protection, int flags, int fd, long offset);

    [LibraryImport(Name, EntryPoint = "munmap", SetLastError = true)]
    internal static partial int MUnmap(void* address, nuint bytes);

    [LibraryImport(Name, EntryPoint = "madvise", SetLastError = true)]
    internal static partial int MAdvise(void* address, nuint bytes, int advice);

    [LibraryImport(Name, EntryPoint = "getuid")]
    internal static partial uint GetUid();
}

/// <summary><c>struct pollfd</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct PollDescriptor
{
    public const short In = 0x001;
    public const short Out = 0x004;
    public const short Error = 0x008;
    public const short HangUp = 0x010;
    public const short ReadHangUp = 0x2000;

    public int Fd;
    public short Events;
    public short ReturnedEvents;
}

/// <summary><c>MSG_*</c> of <c>sys/socket.h</c>.</summary>
internal static class MessageFlag
{
    public const int DontWait = 0x40;
    public const int NoSignal = 0x4000;
}

/// <summary><c>struct timespec</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct TimeSpecification
{
    public long Seconds;
    public long Nanoseconds;
}

/// <summary><c>struct stat</c> on x86-64, the fields that FCtrans reads.</summary>
[StructLayout(LayoutKind.Explicit, Size = 144)]
internal struct FileStatus
{
    /// <summary><c>st_dev</c></summary>
    [FieldOffset(0)]
    public ulong Device;

    /// <summary><c>st_ino</c></summary>
    [FieldOffset(8)]
    public ulong Inode;

    /// <summary><c>st_mode</c></summary>
    [FieldOffset(24)]
    public uint Mode;

    /// <summary><c>st_uid</c></summary>
    [FieldOffset(28)]
    public uint OwnerId;

    /// <summary><c>st_size</c>, in bytes.</summary>
    [FieldOffset(48)]
    public long Bytes;

    /// <summary><c>st_blksize</c>: the huge page's size on hugetlbfs.</summary>
    [FieldOffset(56)]
    public long BlockBytes;

    /// <summary><c>st_blocks</c>, in units of 512 bytes whatever the file system.</summary>
    [FieldOffset(64)]
    public long Blocks512;
}
