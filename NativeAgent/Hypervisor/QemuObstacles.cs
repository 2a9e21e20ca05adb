namespace FCtrans.Agent.Hypervisor;

/// <summary>The rules that say from a command line whether its VM can be split.</summary>
internal static class QemuObstacles
{
    private const string FileBackend = "Start the VM with -object memory-backend-file,mem-path=/dev/shm/…,share=on (libvirt: <memoryBacking> with <source type='file'/> and <access mode='shared'/>).";

    /// <summary>Devices whose writes to guest memory, or whose parts of it, QEMU's own page tables do not show.</summary>
    private static readonly string[] s_foreignDevices =
    [
        "vfio-", "vhost-user-", "vhost-vdpa", "ivshmem", "x-vfio-user", "x-pci-proxy-dev", "virtio-mem", "virtio-pmem", "nvdimm", "sgx-epc",
        // These pin guest pages and let hardware, or another part of the kernel, write to them later.
        "vhost-scsi", "scsi-generic", "scsi-block",
    ];

    /// <param name="qemuVersion">Empty if not known.</param>
    /// <param name="managed">libvirt runs it: it has the monitor, and makes the destination's command line itself.</param>
    public static IReadOnlyList<VmObstacle> Find(QemuCommandLine line, string qemuVersion, bool managed = false)
    {
        var found = new List<VmObstacle>();
        AddMemory(found, line, qemuVersion);
        AddDevices(found, line);
        AddDisks(found, line);
        if (managed)
        {
            // Neither is asked of its command line.
        }
        else if (line.MonitorPath is null)
        {
            found.Add(new VmObstacle(
                VmObstacle.NoMonitor,
                "It has no machine protocol monitor on a Unix socket that FCtrans could use.",
                "Start it with -qmp unix:PATH,server=on,wait=off, one that no other program keeps open."));
        }
        else if (found.Count == 0 && DestinationCommandLine.FindObstacle(line) is { } untranslatable)
        {
            found.Add(new VmObstacle(VmObstacle.CommandLine, untranslatable.Reason, untranslatable.Remedy));
        }

        if (line.Has("snapshot"))
        {
            found.Add(new VmObstacle(
                VmObstacle.CommandLine, "With -snapshot its disks' changes lie in temporary files of this host.",
                "Start it without -snapshot."));
        }

        return found;
    }

    private static void AddMemory(List<VmObstacle> found, QemuCommandLine line, string qemuVersion)
    {
        if (line.Backends.Count == 0)
        {
            found.Add(new VmObstacle(VmObstacle.PrivateMemory, "No memory backend of it was found.", FileBackend));
        }

        foreach (var backend in line.Backends)
        {
            if (!backend.Shared || backend.Kind is not ("memory-backend-file" or "memory-backend-memfd"))
            {
                found.Add(new VmObstacle(
                    VmObstacle.PrivateMemory, $"Its memory {backend.Id} is private to QEMU, not a shared file.", FileBackend));
            }
            else if (backend.HugePages)
            {
                found.Add(new VmObstacle(
                    VmObstacle.HugePages, $"Its memory {backend.Id} lies in huge pages of hugetlbfs.", FileBackend));
            }
            else if (backend.Bytes <= 0 || backend.Bytes % Memory.PageIndex.PageSize != 0)
            {
                found.Add(new VmObstacle(
                    VmObstacle.PrivateMemory, $"The size of its memory {backend.Id} is not given in whole pages.", FileBackend));
            }
            else if (backend.Kind == "memory-backend-memfd" && IsAtLeast(qemuVersion, 8, 1))
            {
                // From 8.1 on, x-ignore-shared leaves named files only out of QEMU's own stream.
                found.Add(new VmObstacle(
                    VmObstacle.PrivateMemory,
                    $"Its memory {backend.Id} is a memfd, which QEMU {qemuVersion} would send by itself.", FileBackend));
            }
        }

        if (line.All("overcommit").Any(v => KeyValueList.Parse(v).IsOn("mem-lock")))
        {
            found.Add(new VmObstacle(
                VmObstacle.LockedMemory, "QEMU locks all its memory.", "Start it without -overcommit mem-lock=on."));
        }
    }

    private static void AddDevices(List<VmObstacle> found, QemuCommandLine line)
    {
        foreach (string value in line.All("device"))
        {
            var device = KeyValueList.Parse(value, "driver");
            string driver = device["driver"] ?? "";
            if (s_foreignDevices.Any(d => driver.StartsWith(d, StringComparison.Ordinal)))
            {
                found.Add(Foreign(driver));
            }
            else if (driver.StartsWith("virtio-gpu", StringComparison.Ordinal) && device.IsOn("blob"))
            {
                found.Add(Foreign(driver + " with blob=on"));
            }
        }

        foreach (string option in (string[])["netdev", "net", "nic"])
        {
            foreach (string value in line.All(option))
            {
                string type = KeyValueList.Parse(value, "type")["type"] ?? "";
                if (type is "vhost-user" or "vhost-vdpa")
                {
                    found.Add(Foreign(type));
                }
            }
        }
    }

    private static VmObstacle Foreign(string device) => new(
        VmObstacle.UnsupportedDevice,
        $"Its device {device} reaches guest memory from outside QEMU's own mapping.",
        "Remove the device, or use one that QEMU emulates.");

    /// <summary>
    /// Direct I/O pins a guest page and lets the disk write to it later: a write that neither the harvest (the page was armed
    /// in between) nor an eviction (it was dropped in between) sees.
    /// </summary>
    private static void AddDisks(List<VmObstacle> found, QemuCommandLine line)
    {
        foreach (string value in line.All("drive"))
        {
            var drive = KeyValueList.Parse(value);
            if (drive["cache"] is "none" or "directsync" || drive.IsOn("cache.direct"))
            {
                found.Add(Direct($"-drive {value}"));
            }
        }

        foreach (string value in line.All("blockdev"))
        {
            // In the JSON form of nested nodes each layer has its own cache member.
            var node = KeyValueList.Parse(value, "driver");
            if (node.Pairs.Any(p => (p.Key == "cache.direct" || p.Key.EndsWith(".cache.direct", StringComparison.Ordinal)) && p.Value is "on" or "true" or "yes"))
            {
                found.Add(Direct($"-blockdev {node["node-name"] ?? value}"));
            }
        }
    }

    private static VmObstacle Direct(string disk) => new(
        VmObstacle.DirectIo,
        $"'{disk}' is read past the page cache, straight into guest memory.",
        "Use cache=writeback (libvirt: <driver cache='writeback'/>).");

    private static bool IsAtLeast(string version, int major, int minor)
    {
        string[] parts = version.Split('.');
        return parts.Length >= 2 && int.TryParse(parts[0], out int a) && int.TryParse(parts[1], out int b)
            && (a > major || (a == major && b >= minor));
    }
}
