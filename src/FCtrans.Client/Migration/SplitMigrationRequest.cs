using FCtrans.Contracts;

namespace FCtrans.Client;

/// <summary>What a split migration is to do.</summary>
public sealed record SplitMigrationRequest
{
    /// <summary>Sub-hosts are numbered 0 to 30 in the page table.</summary>
    public const int MaxSubHosts = 31;

    /// <summary>Below this not even a guest kernel's own pages fit.</summary>
    public const ulong MinMainMemoryBytes = 16UL << 20;

    /// <summary>The host where the VM runs.</summary>
    public required KvmHostConnection Source { get; init; }

    /// <summary>The VM's name on that host.</summary>
    public required string VmName { get; init; }

    /// <summary>The VM's process id there, to tell VMs of one name apart; 0: whichever has the name.</summary>
    public int VmProcessId { get; init; }

    /// <summary>The host that is to run the VM's processors.</summary>
    public required KvmHostConnection MainHost { get; init; }

    /// <summary>The hosts that are to hold the rest of its memory; none is allowed when all of it fits the main host.</summary>
    public required IReadOnlyList<KvmHostConnection> SubHosts { get; init; }

    /// <summary>The most that each sub-host may hold, in bytes and in their order; 0 or missing: what it has free.</summary>
    public IReadOnlyList<ulong> SubHostLimitBytes { get; init; } = [];

    /// <summary>How many bytes of the guest's memory may stay on the main host, given the guest's size in bytes.</summary>
    public required Func<ulong, ulong> MainMemoryBytes { get; init; }

    /// <summary>At how many sub-hosts each page that is not on the main host is to be: 1 or 2.</summary>
    public int Copies { get; init; } = 1;

    /// <summary>Leave out memory that the guest does not use.</summary>
    public bool TrackUnused { get; init; } = true;

    /// <summary>
    /// The command line of the main host's QEMU before paths, sockets and memory are translated, the program first; empty: the source's own.
    /// The devices that the guest sees have to be the same.
    /// </summary>
    public IReadOnlyList<string> QemuCommandLine { get; init; } = [];

    /// <summary>libvirt's persistent description of the VM goes along, and the source's libvirt forgets it.</summary>
    public bool MovePersistentDomain { get; init; }

    /// <summary>The longest standstill at the switch-over that the rounds aim at.</summary>
    public TimeSpan MaxDowntime { get; init; } = TimeSpan.FromMilliseconds(300);

    /// <summary>After so many rounds the switch-over comes, however much is left.</summary>
    public int MaxRounds { get; init; } = 30;

    /// <summary>Bytes a second to all hosts together; 0: no limit.</summary>
    public ulong BandwidthLimitBytesPerSecond { get; init; }

    /// <summary>Guest memory is encrypted on its way, and both ends are authenticated (TLS 1.3). Off for a private network only.</summary>
    public bool Tls { get; init; } = true;

    /// <summary>What happens to memory that the guest writes faster than it can be sent.</summary>
    public MigrationMode Mode { get; init; } = MigrationMode.Hybrid;

    /// <summary>Pre-copy only: when to give up. Hybrid: when to switch over, however much is left. Null: never.</summary>
    public TimeSpan? Timeout { get; init; }
}
