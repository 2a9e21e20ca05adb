using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Reclaim;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;

namespace FCtrans.Agent.Rpc;

/// <summary>Looks at a VM of this host for the module. Changes nothing in it.</summary>
internal static class VmInspector
{
    // One client at a time: another's call may be under way.
    private static readonly TimeSpan s_monitorTimeout = TimeSpan.FromSeconds(2);

    public static VmInfo Describe(QemuProcess vm)
    {
        var info = new VmInfo
        {
            Name = vm.Name,
            Uuid = vm.Uuid,
            ProcessId = vm.Pid,
            MemoryBytes = (ulong)vm.MemoryBytes,
            MonitorPath = vm.MonitorPath,
            Accelerator = vm.Accelerator,
            MachineType = vm.MachineType,
            QemuVersion = vm.QemuVersion,
            Vcpus = vm.VCpus,
            SplitId = WorkerOf(vm)?.SplitId ?? "",
            ResidentBytes = (ulong)vm.ResidentBytes,
            Manager = vm.Libvirt is null ? "" : "libvirt",
        };
        info.RamBlocks.AddRange(vm.RamBlocks.Select(block => new RamBlockInfo
        {
            Id = block.Id,
            SizeBytes = (ulong)block.Bytes,
            Path = block.Path,
            Shared = block.Shared,
        }));
        info.CommandLine.AddRange(vm.CommandLine);
        info.Obstacles.AddRange(vm.Obstacles.Select(o => new Contracts.VmObstacle { Code = o.Code, Reason = o.Reason, Remedy = o.Remedy }));
        if (info.SplitId.Length > 0)
        {
            info.Obstacles.Add(new Contracts.VmObstacle
            {
                Code = "AlreadySplit",
                Reason = "The VM takes part in a split migration, or is split already.",
                Remedy = "See Get-SplitMigration. A split VM can't be split again.",
            });
        }

        AskMonitor(vm, info);
        info.CanSplit = info.Obstacles.Count == 0;
        return info;
    }

    /// <summary>The memory of a VM of this host, to be looked at from here: when the VM is not split, or this is its source. The caller's.</summary>
    /// <exception cref="InvalidOperationException">Its memory can't be read.</exception>
    public static HostVmMemory OpenMemory(QemuProcess vm)
    {
        RefuseUnreadable(vm);
        return new HostVmMemory(vm, tracked: WorkerOf(vm) is not null);
    }

    private static void RefuseUnreadable(QemuProcess vm)
    {
        if (vm.MonitorPath.Length == 0 || vm.Obstacles.FirstOrDefault(o => o.Code is "PrivateMemory" or "HugePages") is not null)
        {
            var obstacle = vm.Obstacles[0];
            throw new InvalidOperationException($"{obstacle.Reason} {obstacle.Remedy}");
        }
    }

    /// <exception cref="InvalidOperationException">It is no domain of libvirt's, or libvirt does not answer.</exception>
    public static LibvirtDomainDescription DescribeDomain(QemuProcess vm)
    {
        if (vm.Libvirt is not { } guest)
        {
            throw new InvalidOperationException($"'{vm.Name}' is no domain of libvirt's.");
        }

        using var libvirt = LibvirtConnection.Open();
        var domain = libvirt.FindByUuid(guest.Uuid);
        bool persistent = libvirt.IsPersistent(domain);
        return new LibvirtDomainDescription
        {
            Xml = libvirt.GetXml(domain),
            Persistent = persistent,
            PersistentXml = persistent ? LibvirtXml.WithoutIncoming(libvirt.GetPersistentXml(domain)) : "",
        };
    }

    private static void AskMonitor(QemuProcess vm, VmInfo info)
    {
        if (vm.MonitorPath.Length == 0)
        {
            return;
        }

        try
        {
            using var monitor = QemuMonitor.Connect(vm.MonitorPath, s_monitorTimeout);
            info.RunState = monitor.QueryStatus().State;
            if (info.SplitId.Length > 0)
            {
                return;
            }

            info.Obstacles.AddRange(monitor.QueryMigrationBlockers().Select(reason => new Contracts.VmObstacle
            {
                Code = Hypervisor.VmObstacle.MigrationBlocked,
                Reason = $"QEMU refuses to migrate it: {reason.TrimEnd('.')}.",
                Remedy = "Remove the device, or start the VM without it.",
            }));
            info.FilteredProcessorFeatures.AddRange(ProcessorFeatures.Filtered(monitor));
            info.ProcessorKnown = true;
        }
        catch (Exception e) when (e is IOException or MonitorException)
        {
            // Busy with another client, or just ending: unknown is what a user should see, not a failed listing.
        }
    }

    /// <summary>The worker of this host that has to do with a VM's memory, its source's or its main host's; null: the VM is not split.</summary>
    public static WorkerDirectory? WorkerOf(QemuProcess vm)
    {
        foreach (var directory in WorkerDirectory.All())
        {
            if (directory.Has(Markers.Ended) || directory.ReadSpec() is not { } spec)
            {
                continue;
            }

            int processId = spec.Role switch
            {
                WorkerRole.Source => spec.VmProcessId,
                WorkerRole.Main => directory.ReadNumber(Markers.QemuPid),
                _ => 0,
            };
            if (processId == vm.Pid)
            {
                return directory;
            }
        }

        return null;
    }
}
