using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Interop;

/// <summary>Which kind of file system a file lies in, and how much room that has.</summary>
internal static unsafe class FileSystems
{
    /// <summary><c>TMPFS_MAGIC</c>; a memfd without huge pages has it too.</summary>
    public const long Tmpfs = 0x01021994;

    /// <summary><c>HUGETLBFS_MAGIC</c></summary>
    public const long HugeTlbFs = 0x958458f6;

    /// <exception cref="KernelException">The handle is not of an open file.</exception>
    public static long KindOf(SafeFileHandle file) => Look(file).Kind;

    /// <summary>Bytes that the file system can still take. For a tmpfs that is its own limit: the host may have less memory.</summary>
    /// <exception cref="KernelException">The path can't be opened.</exception>
    public static (long Kind, long FreeBytes) LookAt(string path)
    {
        using var directory = SparseFile.Open(path, write: false);
        var status = Look(directory);
        return (status.Kind, status.FreeBlocks * status.BlockBytes);
    }

    private static FileSystemStatus Look(SafeFileHandle file)
    {
        FileSystemStatus status;
        if (Libc.FStatFs(file, &status) != 0)
        {
            throw KernelException.Of(Marshal.GetLastPInvokeError(), "look at a file system");
        }

        return status;
    }
}

/// <summary><c>struct statfs</c> on x86-64, the fields that FCtrans reads.</summary>
[StructLayout(LayoutKind.Explicit, Size = 120)]
internal struct FileSystemStatus
{
    /// <summary><c>f_type</c></summary>
    [FieldOffset(0)]
    public long Kind;

    /// <summary><c>f_bsize</c></summary>
    [FieldOffset(8)]
    public long BlockBytes;

    /// <summary><c>f_bavail</c>, in blocks.</summary>
    [FieldOffset(32)]
    public long FreeBlocks;
}
