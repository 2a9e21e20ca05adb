using FCtrans.Contracts;

namespace FCtrans;

/// <summary>A virtual machine that runs on a connected host, as it was when it was asked for.</summary>
public sealed class KvmVm
{
    internal KvmVm(KvmHost host, VmInfo vm)
    {
        KvmHost = host;
        Name = vm.Name;
        Uuid = vm.Uuid;
        ProcessId = vm.ProcessId;
        MemoryBytes = vm.MemoryBytes;
        ResidentBytes = vm.ResidentBytes;
        VcpuCount = vm.Vcpus;
        Accelerator = vm.Accelerator;
        MachineType = vm.MachineType;
        QemuVersion = vm.QemuVersion;
        MonitorPath = vm.MonitorPath;
        State = vm.RunState;
        CanSplit = vm.CanSplit;
        Obstacles = [.. vm.Obstacles.Select(o => new KvmVmObstacle(o))];
        RamBlocks = [.. vm.RamBlocks.Select(b => new KvmVmRamBlock(b))];
        SplitId = vm.SplitId;
        CommandLine = [.. vm.CommandLine];
        Manager = vm.Manager;
    }

    /// <summary>The VM's name.</summary>
    public string Name { get; }

    /// <summary>The host it runs on.</summary>
    public KvmHost KvmHost { get; }

    /// <summary>The name of the host it runs on.</summary>
    public string HostName => KvmHost.Name;

    /// <summary>The VM's UUID; empty if it has none.</summary>
    public string Uuid { get; }

    /// <summary>The process of its QEMU on the host.</summary>
    public int ProcessId { get; }

    /// <summary>The guest's memory.</summary>
    public ulong MemoryBytes { get; }

    /// <summary>How much of it takes up memory on the host.</summary>
    public ulong ResidentBytes { get; }

    /// <summary>Virtual processors.</summary>
    public int VcpuCount { get; }

    /// <summary><c>kvm</c> or <c>tcg</c>.</summary>
    public string Accelerator { get; }

    /// <summary>QEMU's machine type.</summary>
    public string MachineType { get; }

    /// <summary>QEMU's version.</summary>
    public string QemuVersion { get; }

    /// <summary>The socket of QEMU's monitor on the host; empty if there is none.</summary>
    public string MonitorPath { get; }

    /// <summary>What QEMU says: running, paused, ….</summary>
    public string State { get; }

    /// <summary>Whether Start-SplitMigration can move it.</summary>
    public bool CanSplit { get; }

    /// <summary>Why it can't be split, and what to change; empty if it can.</summary>
    public IReadOnlyList<KvmVmObstacle> Obstacles { get; }

    /// <summary>The guest's memory, part by part.</summary>
    public IReadOnlyList<KvmVmRamBlock> RamBlocks { get; }

    /// <summary>The split VM that it is a part of; empty if none.</summary>
    public string SplitId { get; }

    /// <summary><c>libvirt</c> when libvirt runs it as a domain; empty when it was started otherwise.</summary>
    public string Manager { get; }

    /// <summary>QEMU's command line.</summary>
    public IReadOnlyList<string> CommandLine { get; }

    /// <inheritdoc/>
    public override string ToString() => Name;
}

/// <summary>Why a VM can't be split.</summary>
public sealed class KvmVmObstacle
{
    internal KvmVmObstacle(VmObstacle obstacle)
    {
        Code = obstacle.Code;
        Reason = obstacle.Reason;
        Remedy = obstacle.Remedy;
    }

    /// <summary>A stable name: PrivateMemory, NoMonitor, ….</summary>
    public string Code { get; }

    /// <summary>What is in the way.</summary>
    public string Reason { get; }

    /// <summary>What to change.</summary>
    public string Remedy { get; }

    /// <inheritdoc/>
    public override string ToString() => $"{Code}: {Reason}";
}

/// <summary>One QEMU memory backend of a VM.</summary>
public sealed class KvmVmRamBlock
{
    internal KvmVmRamBlock(RamBlockInfo block)
    {
        Id = block.Id;
        SizeBytes = block.SizeBytes;
        Path = block.Path;
        IsShared = block.Shared;
    }

    /// <summary>QEMU's id of it.</summary>
    public string Id { get; }

    /// <summary>Its size.</summary>
    public ulong SizeBytes { get; }

    /// <summary>The file behind it.</summary>
    public string Path { get; }

    /// <summary>Whether other processes can see it (share=on).</summary>
    public bool IsShared { get; }

    /// <inheritdoc/>
    public override string ToString() => Id;
}
