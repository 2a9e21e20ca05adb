using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Hypervisor;

/// <summary>
/// The file behind a RAM block, as a running QEMU has it mapped. What the process says of itself is not enough: the file taken
/// is the very one (device and inode) that it has mapped shared and writable.
/// </summary>
internal static class GuestRamFile
{
    /// <summary>What was seen of a RAM file.</summary>
    internal readonly record struct Look(long AllocatedBytes, long FileSystem);

    /// <summary>Looks without keeping it open; false when the file can't be told from others or not be opened.</summary>
    public static bool TryLookAt(
        int pid, MemoryBackend backend, IReadOnlyList<ProcessMapping> mappings, IReadOnlyList<ProcessDescriptor> descriptors, out Look look)
    {
        look = default;
        try
        {
            if (FindByPath(backend.Path, backend.Kind, backend.Bytes, mappings) is not { } mapping)
            {
                return false;
            }

            using var file = OpenMapped(pid, mapping, descriptors, write: false);
            look = new Look(SparseFile.AllocatedBytes(file), FileSystems.KindOf(file));
            return true;
        }
        catch (Exception e) when (e is KernelException or InvalidOperationException)
        {
            return false;
        }
    }

    /// <summary>The mapping of a block's first byte, found by the file's name; null when there is none, or several fit.</summary>
    public static ProcessMapping? FindByPath(string path, string kind, long bytes, IReadOnlyList<ProcessMapping> mappings)
    {
        var candidates = mappings.Where(m => m.IsSharedWritable && m.Inode != 0 && Matches(m.Path, path, kind)).ToList();
        var files = candidates.Select(m => (m.Device, m.Inode, m.FileStart)).Distinct()
            .Where(f => CoveredBytes(mappings, f.Device, f.Inode, f.FileStart) >= (ulong)bytes)
            .ToList();
        return files.Count == 1 ? candidates.First(m => (m.Device, m.Inode, m.FileStart) == files[0]) : null;
    }

    /// <summary>How many bytes from the file's first on are mapped without a gap, one after the other from <paramref name="fileStart"/>.</summary>
    public static ulong CoveredBytes(IReadOnlyList<ProcessMapping> mappings, string device, ulong inode, HostAddress fileStart)
    {
        ulong next = fileStart.Value;
        foreach (var mapping in mappings.OrderBy(m => m.Start))
        {
            if (mapping.Device == device && mapping.Inode == inode && mapping.IsSharedWritable
                && mapping.FileStart == fileStart && mapping.Start == next)
            {
                next = mapping.End;
            }
        }

        return next - fileStart.Value;
    }

    /// <summary>Opens the mapped file through the process's own descriptor of it, or through the mapping itself.</summary>
    /// <exception cref="KernelException">It can't be opened.</exception>
    /// <exception cref="InvalidOperationException">What was opened is another file.</exception>
    public static SafeFileHandle OpenMapped(
        int pid, ProcessMapping mapping, IReadOnlyList<ProcessDescriptor> descriptors, bool write)
    {
        foreach (var descriptor in descriptors)
        {
            if (descriptor.Target == mapping.Path && TryOpenSame($"/proc/{pid}/fd/{descriptor.Number}", mapping, write) is { } file)
            {
                return file;
            }
        }

        // QEMU may have closed its descriptor after mmap. The kernel needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE for this.
        return TryOpenSame($"/proc/{pid}/map_files/{mapping.Start:x}-{mapping.End:x}", mapping, write)
            ?? throw new InvalidOperationException($"The file that process {pid} has mapped at 0x{mapping.Start:x} can't be found.");
    }

    private static SafeFileHandle? TryOpenSame(string path, ProcessMapping mapping, bool write)
    {
        SafeFileHandle file;
        try
        {
            file = SparseFile.Open(path, write);
        }
        catch (KernelException e) when (e.Errno is Errno.ENOENT or Errno.ESRCH or Errno.ENXIO)
        {
            return null;
        }

        var status = SparseFile.Status(file);
        if (status.Inode == mapping.Inode && ProcessFiles.FormatDevice(status.Device) == mapping.Device)
        {
            return file;
        }

        file.Dispose();
        return null;
    }

    private static bool Matches(string mapped, string path, string kind)
    {
        const string Deleted = " (deleted)";
        string plain = mapped.EndsWith(Deleted, StringComparison.Ordinal) ? mapped[..^Deleted.Length] : mapped;
        if (kind == "memory-backend-memfd")
        {
            return plain == "/memfd:memory-backend-memfd";
        }

        // A directory as mem-path: QEMU makes a file of its own there and unlinks it.
        return plain == path
            || (path.Length > 0 && plain.StartsWith(path.TrimEnd('/') + "/qemu_back_mem.", StringComparison.Ordinal))
            || (path.Length > 0 && path[0] != '/' && plain.EndsWith("/" + path.TrimStart('.', '/'), StringComparison.Ordinal));
    }
}
