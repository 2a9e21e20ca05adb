using System.Globalization;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Workers;

namespace FCtrans.Agent.Migration;

/// <summary>
/// Which RAM files the VM had at its source, for a worker that is started again when QEMU has ended: what was left in them is there still,
/// and they are to be removed in the end. A file of a path is the same file only if its inode is the same too.
/// </summary>
internal static class KeptRam
{
    private const string Name = "ram-files";

    public static void Note(WorkerDirectory directory, GuestRam ram)
    {
        var lines = new List<string>();
        foreach (var block in ram.Blocks)
        {
            lines.Add(string.Create(
                CultureInfo.InvariantCulture, $"{SparseFile.Status(block.File).Inode} {block.PageCount} {block.Id} {block.Path}"));
        }

        directory.Mark(Name, string.Join('\n', lines));
    }

    /// <summary>The files without QEMU; null when one of them has gone with it.</summary>
    public static GuestRam? TryOpen(WorkerDirectory directory)
    {
        var blocks = new List<RamBlock>();
        foreach (var (inode, pages, id, path) in Read(directory))
        {
            if (TryOpen(path, inode) is not { } file)
            {
                blocks.ForEach(block => block.Dispose());
                return null;
            }

            blocks.Add(new RamBlock(id, blocks.Count == 0 ? 0 : blocks[^1].EndPage, pages, default, file, path));
        }

        return blocks.Count == 0 ? null : new GuestRam(blocks, []);
    }

    /// <summary>QEMU leaves a RAM file that its command line names. Its content is the main host's now.</summary>
    public static void Remove(WorkerDirectory directory)
    {
        foreach (var (inode, _, _, path) in Read(directory))
        {
            if (!path.StartsWith("/dev/shm/", StringComparison.Ordinal) || TryOpen(path, inode) is not { } file)
            {
                continue;
            }

            file.Dispose();
            File.Delete(path);
        }
    }

    private static Microsoft.Win32.SafeHandles.SafeFileHandle? TryOpen(string path, ulong inode)
    {
        if (!File.Exists(path))
        {
            return null;
        }

        var file = SparseFile.Open(path, write: true);
        if (SparseFile.Status(file).Inode == inode && FileSystems.KindOf(file) == FileSystems.Tmpfs)
        {
            return file;
        }

        file.Dispose();
        return null;
    }

    private static IEnumerable<(ulong Inode, long Pages, string Id, string Path)> Read(WorkerDirectory directory)
    {
        foreach (string line in directory.Read(Name)?.Split('\n', StringSplitOptions.RemoveEmptyEntries) ?? [])
        {
            // A path may have spaces, an object id has none.
            string[] parts = line.Split(' ', 4);
            yield return (
                ulong.Parse(parts[0], CultureInfo.InvariantCulture), long.Parse(parts[1], CultureInfo.InvariantCulture), parts[2], parts[3]);
        }
    }
}
