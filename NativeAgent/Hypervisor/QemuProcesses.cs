using System.Globalization;
using FCtrans.Agent.Interop;

namespace FCtrans.Agent.Hypervisor;

/// <summary>
/// Finds the QEMU system emulators of this host: of the PID namespace that the agent is in. What is in another one (a
/// container's) belongs to another host as far as FCtrans is concerned.
/// </summary>
internal static class QemuProcesses
{
    public static IReadOnlyList<QemuProcess> Find()
    {
        string? ownNamespace = ProcessFiles.LinkTarget("/proc/self/ns/pid");
        var found = new List<QemuProcess>();
        foreach (string directory in Directory.EnumerateDirectories("/proc"))
        {
            if (int.TryParse(Path.GetFileName(directory), NumberStyles.None, CultureInfo.InvariantCulture, out int pid)
                && TryLookAt(pid, ownNamespace) is { } process)
            {
                found.Add(process);
            }
        }

        found.Sort((a, b) => string.CompareOrdinal(a.Name, b.Name) is not 0 and var order ? order : a.Pid.CompareTo(b.Pid));
        return found;
    }

    /// <summary>The QEMU with this process id; null if there is none.</summary>
    public static QemuProcess? TryOpen(int processId) => TryLookAt(processId, ProcessFiles.LinkTarget("/proc/self/ns/pid"));

    /// <summary>The VM of this name, UUID or process id; null if there is none or more than one.</summary>
    public static QemuProcess? TryFind(string nameOrId)
    {
        var matches = Find().Where(p => p.Name == nameOrId
            || (p.Uuid.Length > 0 && p.Uuid.Equals(nameOrId, StringComparison.OrdinalIgnoreCase))
            || p.Pid.ToString(CultureInfo.InvariantCulture) == nameOrId).ToList();
        return matches.Count == 1 ? matches[0] : null;
    }

    /// <summary>As <see cref="TryOpen"/>, also in a PID namespace below ours: for who drives labs of several hosts.</summary>
    public static QemuProcess? OpenAnywhere(int processId) => TryLookAt(processId, ownNamespace: null);

    private static QemuProcess? TryLookAt(int pid, string? ownNamespace)
    {
        ulong startTime = ProcessFiles.StartTime(pid);
        string executable = ProcessFiles.Executable(pid);
        var arguments = ProcessFiles.CommandLine(pid);
        if (startTime == 0 || arguments.Count == 0 || !IsEmulator(executable.Length > 0 ? executable : arguments[0])
            || (ownNamespace is not null && ProcessFiles.LinkTarget($"/proc/{pid}/ns/pid") is { } other && other != ownNamespace))
        {
            return null;
        }

        var line = QemuCommandLine.Parse(arguments);
        if (!IsGuest(line))
        {
            return null;
        }

        var descriptors = ProcessFiles.Descriptors(pid);
        string version = QemuVersions.Of(pid);
        bool managed = LibvirtGuest.TryIdentify(pid, line, out var libvirt);
        var obstacles = new List<VmObstacle>(QemuObstacles.Find(line, version, managed));
        if (libvirt is { Directory.Length: 0 })
        {
            obstacles.Add(new VmObstacle(VmObstacle.Libvirt, "The domain's directory can't be told from its command line.", "Use libvirt 4.0 or later."));
        }

        AddSeen(obstacles, pid, line, descriptors, out long resident);
        var process = new QemuProcess
        {
            Pid = pid,
            StartTime = startTime,
            Name = line.Name.Length > 0 ? line.Name : $"pid-{pid}",
            Uuid = line.Uuid,
            MemoryBytes = line.Backends.Sum(b => b.Bytes),
            RamBlocks = [.. line.Backends.Select(b => new QemuRamBlock(b.Id, b.Bytes, b.Path, b.Shared))],
            MonitorPath = libvirt?.MonitorPath ?? Absolute(pid, line.MonitorPath),
            Libvirt = libvirt,
            Accelerator = descriptors.Count > 0
                ? descriptors.Any(d => d.Target == "anon_inode:kvm-vm") ? "kvm" : "tcg"
                : line.AsksForKvm ? "kvm" : "tcg",
            MachineType = line.MachineType,
            QemuVersion = version,
            VCpus = line.VCpus,
            CommandLine = executable.Length > 0 ? [executable, .. arguments.Skip(1)] : arguments,
            ResidentBytes = resident,
            Obstacles = obstacles,
        };

        // All of this was read bit by bit: only if the number still means the same process does it belong together.
        return process.IsStillThere ? process : null;
    }

    private static void AddSeen(
        List<VmObstacle> obstacles, int pid, QemuCommandLine line, IReadOnlyList<ProcessDescriptor> descriptors, out long resident)
    {
        resident = 0;
        if (descriptors.Count == 0)
        {
            obstacles.Add(new VmObstacle(
                VmObstacle.NotReachable, "The agent may not look into the process.", "Connect as root, or as the user that QEMU runs as."));
            return;
        }

        if (descriptors.Any(d => d.Target == "anon_inode:[userfaultfd]"))
        {
            obstacles.Add(new VmObstacle(
                VmObstacle.AlreadySplit,
                "Its memory is served through a userfaultfd already: it is part of a split, or being migrated.",
                "Look at it with Get-SplitMigration; let that end, or stop it."));
        }

        if (obstacles.Any(o => o.Code is VmObstacle.PrivateMemory or VmObstacle.HugePages))
        {
            return;
        }

        var mappings = ProcessFiles.Mappings(pid);
        foreach (var backend in line.Backends)
        {
            if (GuestRamFile.TryLookAt(pid, backend, mappings, descriptors, out var look))
            {
                resident += look.AllocatedBytes;
                if (look.FileSystem == FileSystems.HugeTlbFs)
                {
                    obstacles.Add(new VmObstacle(
                        VmObstacle.HugePages, $"Its memory {backend.Id} lies in huge pages of hugetlbfs.",
                        "Put the RAM file in a tmpfs such as /dev/shm."));
                }
                else if (look.FileSystem != FileSystems.Tmpfs)
                {
                    obstacles.Add(new VmObstacle(
                        VmObstacle.NotInTmpfs, $"The file of its memory {backend.Id}, {backend.Path}, does not lie in a tmpfs.",
                        "Put the RAM file in a tmpfs such as /dev/shm."));
                }
            }
        }
    }

    private static bool IsEmulator(string path)
    {
        string name = Path.GetFileName(path);
        return name.StartsWith("qemu-system-", StringComparison.Ordinal) || name is "qemu-kvm" or "kvm";
    }

    /// <summary>Not a QEMU that only answers a question, and not libvirt's probe of what it can do.</summary>
    private static bool IsGuest(QemuCommandLine line)
        => line.MachineType != "none" && !line.Has("version") && !line.Has("help") && !line.Has("h")
            && !line.Options.Any(o => o.Value is "help" or "?");

    private static string Absolute(int pid, string? path)
    {
        if (string.IsNullOrEmpty(path) || path[0] == '/')
        {
            return path ?? "";
        }

        string? directory = ProcessFiles.LinkTarget($"/proc/{pid}/cwd");
        return directory is null ? "" : Path.GetFullPath(path, directory);
    }
}
