using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Interop;

/// <summary>Whether somebody has a Unix socket's path: a program that is killed leaves the file behind.</summary>
/// <remarks>Source: proc(5), <c>/proc/net/unix</c>; of this network namespace, with the path as it was bound.</remarks>
internal static class UnixSockets
{
    // <sys/stat.h>: S_IFMT, S_IFSOCK
    private const uint ModeTypeMask = 0xF000;
    private const uint ModeSocket = 0xC000;

    /// <summary>Whether a socket is bound to the path. Connecting would tell too, but a monitor would take it for its client.</summary>
    public static bool IsBound(string path) =>
        File.ReadLines("/proc/net/unix").Any(line => line.EndsWith(path, StringComparison.Ordinal) && line[^(path.Length + 1)] == ' ');

    /// <summary>Whether there is something at the path that a new socket can't replace: a file, or a socket in use.</summary>
    public static bool IsTaken(string path) => Path.Exists(path) && (!IsSocket(path) || IsBound(path));

    /// <summary>Removes the file of a socket that nobody has any more.</summary>
    public static void RemoveStale(string path)
    {
        if (IsSocket(path) && !IsBound(path))
        {
            File.Delete(path);
        }
    }

    /// <summary>Whether a socket's file is at the path, whoever may have it.</summary>
    public static bool IsSocket(string path)
    {
        // Opened as a name only: a socket can't be opened otherwise, and nothing happens to what else may be there.
        int fd = Libc.Open(path, OpenFlag.PathOnly | OpenFlag.CloseOnExec, 0);
        if (fd < 0)
        {
            return false;
        }

        using var name = new SafeFileHandle(fd, ownsHandle: true);
        return (SparseFile.Status(name).Mode & ModeTypeMask) == ModeSocket;
    }
}
