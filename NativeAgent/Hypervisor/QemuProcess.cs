namespace FCtrans.Agent.Hypervisor;

/// <summary>A block of guest RAM as its QEMU's command line has it.</summary>
/// <param name="Path">Of the file behind it, as the QEMU process sees it; empty if it has none.</param>
internal sealed record QemuRamBlock(string Id, long Bytes, string Path, bool Shared);

/// <summary>A running QEMU system emulator, as it was when it was looked at. Immutable.</summary>
internal sealed record QemuProcess
{
    public required int Pid { get; init; }

    /// <summary>In clock ticks since boot; see <see cref="IsStillThere"/>.</summary>
    public required ulong StartTime { get; init; }

    /// <summary><c>-name guest=…</c>; <c>pid-N</c> for a VM without a name.</summary>
    public required string Name { get; init; }

    /// <summary>Empty if none was given.</summary>
    public required string Uuid { get; init; }

    public required long MemoryBytes { get; init; }

    /// <summary>In the order in which they are laid end to end: page 0 is the first page of the first.</summary>
    public required IReadOnlyList<QemuRamBlock> RamBlocks { get; init; }

    /// <summary>A Unix socket that speaks QMP, absolute, or libvirt's name for it; empty if there is none.</summary>
    public required string MonitorPath { get; init; }

    /// <summary>Set when libvirt runs it as a domain.</summary>
    public LibvirtGuest? Libvirt { get; init; }

    /// <summary><c>kvm</c> or <c>tcg</c>: what it really runs with.</summary>
    public required string Accelerator { get; init; }

    public required string MachineType { get; init; }

    /// <summary>Such as <c>7.2.22</c>; empty when the program would not say.</summary>
    public required string QemuVersion { get; init; }

    public required int VCpus { get; init; }

    /// <summary>The program's absolute path first.</summary>
    public required IReadOnlyList<string> CommandLine { get; init; }

    /// <summary>The descriptors of RAM files that are allocated, summed, in bytes; 0 when they can't be seen.</summary>
    public required long ResidentBytes { get; init; }

    /// <summary>Why it can't be split; empty if it can.</summary>
    public required IReadOnlyList<VmObstacle> Obstacles { get; init; }

    /// <summary>Whether the process id still names this process.</summary>
    public bool IsStillThere => ProcessFiles.StartTime(Pid) == StartTime;
}
