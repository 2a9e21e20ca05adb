using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Reclaim;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;

namespace FCtrans.Agent.Rpc;

/// <summary>Looks at a VM of this host for the module. Changes nothing in it.</summary>
internal static class VmInspector
{
    // One client at a time: another's call may be under way.
    private static readonly TimeSpan s_monitorTimeout = TimeSpan.FromSeconds(2);

    private const int ShortestIntervalMilliseconds = 100;
    private const int LongestIntervalMilliseconds = 3_600_000;

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
            RunState = RunState(vm),
            SplitId = SplitOf(vm),
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

        info.CanSplit = info.Obstacles.Count == 0;
        return info;
    }

    /// <exception cref="InvalidOperationException">Its memory can't be read.</exception>
    public static UnusedMemory FindUnusedMemory(QemuProcess vm)
    {
        RefuseUnreadable(vm);
        using var monitor = QemuMonitor.Connect(vm.MonitorPath, s_monitorTimeout);
        using var ram = GuestRamFactory.Open(vm, monitor);
        bool paged = SplitOf(vm).Length > 0;
        using var pages = UnusedPages.Open(ram, mayMap: !paged, () => GuestProcessor.Ask(monitor));
        using var unused = new PageBitmap(ram.PageCount);
        var found = pages.Refresh(unused);
        return ToContract(vm, found);
    }

    /// <summary>Gives free memory back, turn by turn, until it is done or <paramref name="stop"/> comes.</summary>
    /// <param name="vm">A VM that is not split.</param>
    /// <param name="request">As the caller has sent it.</param>
    /// <param name="turned">Told of each turn.</param>
    /// <param name="stop">Ends it after the batch under way.</param>
    /// <exception cref="InvalidOperationException">Its memory can't be read, or has an owner already.</exception>
    public static void OptimizeMemory(QemuProcess vm, OptimizeMemoryRequest request, Action<OptimizedMemory> turned, CancellationToken stop)
    {
        RefuseUnreadable(vm);
        if (SplitOf(vm).Length > 0)
        {
            throw new InvalidOperationException(
                "The VM is split, or being migrated: its main host gives free memory back by itself, on all hosts.");
        }

        var limits = new ReclaimLimits
        {
            WhatIf = request.WhatIf,
            BytesPerSecond = (long)Math.Min(request.BytesPerSecond, long.MaxValue),
            ProcessorPercent = request.ProcessorPercent == 0 ? 100 : Math.Clamp(request.ProcessorPercent, 1, 100),
        };
        int interval = Math.Clamp(request.IntervalMilliseconds, ShortestIntervalMilliseconds, LongestIntervalMilliseconds);
        QemuMonitor? monitor = QemuMonitor.Connect(vm.MonitorPath, s_monitorTimeout);
        IReadOnlyList<GuestProcessor> Ask() => GuestProcessor.Ask(monitor!);
        try
        {
            using var ram = GuestRamFactory.Open(vm, monitor);
            using var pages = UnusedPages.Open(ram, mayMap: true, Ask);
            using var check = new ProcessorCheck(Ask);
            using var target = HostReclaimTarget.Attach(ram, vm.Pid);
            using var reclaim = new VmReclaim(ram, pages, target, check);
            do
            {
                monitor ??= QemuMonitor.Connect(vm.MonitorPath, s_monitorTimeout);
                var figures = reclaim.Turn(limits, settledOnly: request.Continuous, stop);
                turned(new OptimizedMemory
                {
                    PageSizeBytes = PageIndex.PageSize,
                    FoundPages = (ulong)figures.FoundPages,
                    FreedPages = (ulong)figures.FreedPages,
                    TakenBackBlocks = (ulong)figures.TakenBack,
                    Milliseconds = figures.Milliseconds,
                    Memory = ToContract(vm, reclaim.Seen!),
                });
                if (request.Continuous)
                {
                    // A monitor has one client at a time: between the turns it is free for others.
                    monitor.Dispose();
                    monitor = null;
                }
            }
            while (request.Continuous && !stop.WaitHandle.WaitOne(interval));
        }
        finally
        {
            monitor?.Dispose();
        }
    }

    private static UnusedMemory ToContract(QemuProcess vm, UnusedFigures found) => new()
    {
        Vm = vm.Name,
        PageSizeBytes = PageIndex.PageSize,
        TotalPages = (ulong)found.Total,
        NeverTouchedPages = (ulong)found.NeverTouched,
        FreePages = (ulong)found.Free,
        BalloonedPages = (ulong)found.Ballooned,
        UsedPages = (ulong)found.Used,
        GuestKernel = found.GuestKernel,
        Method = found.Method,
        Reason = found.Reason,
        ScanMilliseconds = found.ScanMilliseconds,
        FindMilliseconds = found.FindMilliseconds,
    };

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

    private static string RunState(QemuProcess vm)
    {
        if (vm.MonitorPath.Length == 0)
        {
            return "";
        }

        try
        {
            using var monitor = QemuMonitor.Connect(vm.MonitorPath, s_monitorTimeout);
            return monitor.QueryStatus().State;
        }
        catch (Exception e) when (e is IOException or MonitorException)
        {
            // Busy with another client, or just ending: unknown is what a user should see, not a failed listing.
            return "";
        }
    }

    private static string SplitOf(QemuProcess vm)
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
                return spec.SplitId;
            }
        }

        return "";
    }
}
