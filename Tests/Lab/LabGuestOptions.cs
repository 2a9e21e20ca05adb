namespace FCtrans.Lab;

/// <summary>What QEMU takes a guest's memory from.</summary>
public enum LabGuestBacking
{
    /// <summary>A shared file in the host's /dev/shm, which is what a split migration needs.</summary>
    File,

    /// <summary>A shared memfd.</summary>
    Memfd,

    /// <summary>Private memory, which nobody else can reach: such a guest can't be split.</summary>
    Private,
}

/// <summary>What a Linux guest of the lab is like.</summary>
public sealed record LabGuestOptions
{
    /// <summary>The guest's name: letters, digits and hyphens.</summary>
    public required string Name { get; init; }

    /// <summary>
    /// Whether it is the bare guest under KVM (Tests/Guest/bare.c) instead of Linux under TCG; then it has one CPU, at
    /// most 2 GiB, and the options about kernels and NUMA mean nothing.
    /// </summary>
    public bool Bare { get; init; }

    /// <summary>Its memory in bytes: whole MiB, at least 128 (a bare guest's: 32).</summary>
    public long MemoryBytes { get; init; } = 1L << 30;

    /// <summary>Its virtual CPUs, 1 to 16.</summary>
    public int Cpus { get; init; } = 2;

    /// <summary>QEMU's version: 7.2 (installed) or 10.0 (`prepare qemu-10.0`).</summary>
    public string Qemu { get; init; } = "7.2";

    /// <summary>The guest kernel's version: 6.1 or 6.12, of Debian's cloud flavour, or 6.12-generic (`prepare kernel-6.12-generic`).</summary>
    public string Kernel { get; init; } = "6.1";

    /// <summary>What the memory is taken from.</summary>
    public LabGuestBacking Backing { get; init; } = LabGuestBacking.File;

    /// <summary>Whether the host's libvirt runs it as a domain; then it has one RAM block in a file, and no arguments for QEMU.</summary>
    public bool Libvirt { get; init; }

    /// <summary>Whether that domain is a persistent one.</summary>
    public bool Persistent { get; init; }

    /// <summary>In how many NUMA nodes, each with a RAM block of its own, the memory comes: 1 to 4.</summary>
    public int NumaNodes { get; init; } = 1;

    /// <summary>Whether it has kernel 6.12 and an initramfs to start by the oracle's <c>kexec /kexec/kernel /kexec/initrd</c> (`prepare kexec`).</summary>
    public bool Kexec { get; init; }

    /// <summary>
    /// Whether it has Debian's redis-server, to start by the oracle's <c>sh sh /server/start</c>, and what its kernel needs for a
    /// virtio network card (`prepare server`); kernel 6.1.
    /// </summary>
    public bool Server { get; init; }

    /// <summary>More words for the guest kernel's command line.</summary>
    public string KernelArguments { get; init; } = "";

    /// <summary>More arguments for QEMU.</summary>
    public IReadOnlyList<string> QemuArguments { get; init; } = [];

    /// <summary>How long the boot may take.</summary>
    public TimeSpan BootTimeout { get; init; } = TimeSpan.FromSeconds(120);

    internal void Validate()
    {
        if (Name.Length is 0 or > 32 || !Name.All(c => char.IsAsciiLetterOrDigit(c) || c == '-'))
        {
            throw new LabException($"'{Name}' can't be a guest's name: it takes 1 to 32 letters, digits and hyphens.");
        }

        if (MemoryBytes < (Bare ? 32L : 128L) << 20 || MemoryBytes % (1 << 20) != 0)
        {
            throw new LabException("A guest's memory is whole MiB, at least 128 MiB (a bare guest's: 32 MiB).");
        }

        if (Bare && (NumaNodes != 1 || MemoryBytes > 2L << 30))
        {
            throw new LabException("A bare guest takes at most 2 GiB, in one RAM block.");
        }

        if (Cpus is < 1 or > 16 || NumaNodes is < 1 or > 4 || (MemoryBytes >> 20) % NumaNodes != 0 || NumaNodes > Cpus)
        {
            throw new LabException("A guest takes 1 to 16 CPUs, and 1 to 4 NUMA nodes that share its MiB evenly, each with a CPU.");
        }
    }
}
