using System.Globalization;
using System.Text.RegularExpressions;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Hypervisor;

/// <summary>A VM's RAM can't be reached, or is not what its command line says: why, and what to do.</summary>
internal sealed class GuestRamException(string reason, string remedy, Exception? cause = null)
    : Exception(remedy.Length == 0 ? reason : $"{reason} {remedy}", cause)
{
    public string Reason { get; } = reason;

    public string Remedy { get; } = remedy;
}

/// <summary>
/// Opens all RAM of a running QEMU. The blocks are those of the command line, in its order (<see
/// cref="QemuCommandLine.Backends"/>): so source and destination agree on every page's index. Where QEMU has mapped a block and
/// where it appears on the guest's bus is asked of QEMU itself (<c>info mtree -f</c>, <c>gpa2hva</c>) when there is a monitor.
/// </summary>
internal static partial class GuestRamFactory
{
    /// <param name="process">Has to be there still.</param>
    /// <param name="monitor">Null: no guest-physical segments, and blocks are found by their files' names alone.</param>
    /// <param name="withPlugged">
    /// Memory that was plugged in while the VM ran follows the rest, in the monitor's order: for those who only look at the VM here.
    /// Otherwise it is refused, since a destination that is started from the command line would lack it.
    /// </param>
    /// <returns>Owned by the caller.</returns>
    /// <exception cref="GuestRamException">A block's file can't be told, opened, or does not have the size it should have.</exception>
    /// <exception cref="MonitorException">The monitor does not answer.</exception>
    public static GuestRam Open(QemuProcess process, QemuMonitor? monitor, bool withPlugged = false)
    {
        var line = QemuCommandLine.Parse(process.CommandLine);
        var plugged = monitor?.QueryMemoryDevices().Where(device => line.Backends.All(b => b.Id != device.Backend)).ToList() ?? [];
        if (plugged.Count > 0 && !withPlugged)
        {
            throw new GuestRamException(
                $"Memory was plugged into {process.Name} while it ran: {string.Join(", ", plugged.Select(device => device.Backend))}.",
                "Unplug it, or start the VM with it.");
        }

        // What it is taken from only the mapping tells, and QEMU where that is.
        var backends = line.Backends.Concat(
            plugged.Select(device => new MemoryBackend(device.Backend, "", device.Bytes, "", Shared: true, HugePages: false)));
        var tree = monitor is null ? [] : ReadTree(monitor);
        var mappings = ProcessFiles.Mappings(process.Pid);
        var descriptors = ProcessFiles.Descriptors(process.Pid);
        var blocks = new List<RamBlock>();
        try
        {
            var segments = new List<GuestRamSegment>();
            long firstPage = 0;
            foreach (var backend in backends)
            {
                if (!backend.Shared || backend.Bytes <= 0 || backend.Bytes % PageIndex.PageSize != 0)
                {
                    throw new GuestRamException(
                        $"The memory {backend.Id} of {process.Name} is private to QEMU, or not of whole pages.",
                        "Use -object memory-backend-file,mem-path=/dev/shm/…,share=on.");
                }

                var own = tree.Where(r => BelongsTo(r.Region, backend.Id)).ToList();
                AddSegments(segments, own, backend, (ulong)firstPage << PageIndex.PageShift);
                var mapping = monitor is null || own.Count == 0
                    ? GuestRamFile.FindByPath(backend.Path, backend.Kind, backend.Bytes, mappings)
                    : FindByAddress(monitor, own[0], backend, mappings);
                if (mapping is not { } found)
                {
                    throw new GuestRamException(
                        $"The memory {backend.Id} of {process.Name} was not found among the shared mappings of process {process.Pid}.",
                        backend.Kind.Length == 0 ? "Plug in memory from -object memory-backend-file,mem-path=/dev/shm/…,share=on." : "");
                }

                blocks.Add(OpenBlock(process, backend, found, mappings, descriptors, firstPage));
                firstPage = blocks[^1].EndPage;
            }

            return new GuestRam(blocks, segments);
        }
        catch (Exception e)
        {
            blocks.ForEach(b => b.Dispose());
            if (e is KernelException or InvalidOperationException)
            {
                throw new GuestRamException($"The memory of {process.Name} can't be opened: {e.Message}", "", e);
            }

            throw;
        }
    }

    private static RamBlock OpenBlock(
        QemuProcess process, MemoryBackend backend, ProcessMapping mapping, IReadOnlyList<ProcessMapping> mappings,
        IReadOnlyList<ProcessDescriptor> descriptors, long firstPage)
    {
        ulong covered = GuestRamFile.CoveredBytes(mappings, mapping.Device, mapping.Inode, mapping.FileStart);
        if (covered < (ulong)backend.Bytes)
        {
            throw new GuestRamException(
                $"QEMU has mapped only {covered} of the {backend.Bytes} bytes of {backend.Id} in one piece.", "");
        }

        SafeFileHandle file = GuestRamFile.OpenMapped(process.Pid, mapping, descriptors, write: true);
        try
        {
            var status = SparseFile.Status(file);
            if (status.Bytes < backend.Bytes)
            {
                throw new GuestRamException(
                    $"The file of {backend.Id} has {status.Bytes} bytes, not {backend.Bytes}.", "");
            }

            if (FileSystems.KindOf(file) != FileSystems.Tmpfs)
            {
                throw new GuestRamException(
                    $"The file of {backend.Id}, {mapping.Path}, does not lie in a tmpfs.", "Put it in one, such as /dev/shm.");
            }

            return new RamBlock(
                backend.Id, firstPage, backend.Bytes >> PageIndex.PageShift, mapping.FileStart, file, mapping.Path);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private static IReadOnlyList<MemoryTreeRange> ReadTree(QemuMonitor monitor)
    {
        try
        {
            return MemoryTree.ParseFlatView(monitor.HumanMonitor("info mtree -f"));
        }
        catch (FormatException e)
        {
            throw new GuestRamException(e.Message, "This version of QEMU may be one that FCtrans does not know.", e);
        }
    }

    private static void AddSegments(
        List<GuestRamSegment> segments, List<MemoryTreeRange> ranges, MemoryBackend backend, ulong blockOffset)
    {
        foreach (var range in ranges)
        {
            if (range.Offset > (ulong)backend.Bytes || range.Bytes > (ulong)backend.Bytes - range.Offset)
            {
                throw new GuestRamException(
                    $"QEMU's memory tree shows 0x{range.Start:x} outside the {backend.Bytes} bytes of {backend.Id}.", "");
            }

            // The tree shows read-only parts apart from their neighbours; for us they are one.
            var segment = new GuestRamSegment(range.Start, range.Bytes, blockOffset + range.Offset);
            if (segments.Count > 0 && segments[^1] is var last
                && last.Start + last.Bytes == segment.Start && last.RamOffset + last.Bytes == segment.RamOffset)
            {
                segments[^1] = last with { Bytes = last.Bytes + segment.Bytes };
            }
            else
            {
                segments.Add(segment);
            }
        }
    }

    /// <summary>Two memfds have the same name, and a file can be mapped twice: QEMU itself says where the guest's memory is.</summary>
    private static ProcessMapping? FindByAddress(
        QemuMonitor monitor, MemoryTreeRange range, MemoryBackend backend, IReadOnlyList<ProcessMapping> mappings)
    {
        string answer = monitor.HumanMonitor(string.Create(CultureInfo.InvariantCulture, $"gpa2hva 0x{range.Start:x}"));
        var match = HostVirtualAddress().Match(answer);
        if (!match.Success || !BelongsTo(match.Groups["name"].Value, backend.Id)
            || !ulong.TryParse(match.Groups["address"].ValueSpan, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong address))
        {
            throw new GuestRamException($"QEMU does not say where {backend.Id} is: {answer.Trim()}", "");
        }

        foreach (var mapping in mappings)
        {
            if (address >= mapping.Start && address < mapping.End)
            {
                return mapping.IsSharedWritable && mapping.FileStart == new HostAddress(address - range.Offset) ? mapping : null;
            }
        }

        return null;
    }

    /// <summary>Machine types before 4.0 give a region its backend's whole object path.</summary>
    private static bool BelongsTo(string region, string backendId) => region == backendId || region == "/objects/" + backendId;

    [GeneratedRegex(
        @"Host virtual address for 0x[0-9a-f]+ \((?<name>.*)\) is 0x(?<address>[0-9a-f]+)", RegexOptions.CultureInvariant)]
    private static partial Regex HostVirtualAddress();
}
