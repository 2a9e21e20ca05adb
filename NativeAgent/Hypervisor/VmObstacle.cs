namespace FCtrans.Agent.Hypervisor;

/// <summary>Why a VM can't be split, and what to change. <paramref name="Code"/> is stable: tests and scripts use it.</summary>
internal sealed record VmObstacle(string Code, string Reason, string Remedy)
{
    public const string PrivateMemory = "PrivateMemory";
    public const string NoMonitor = "NoMonitor";
    public const string UnsupportedDevice = "UnsupportedDevice";
    public const string HugePages = "HugePages";
    public const string NotReachable = "NotReachable";
    public const string AlreadySplit = "AlreadySplit";

    /// <summary>The RAM file lies in a file system where userfaultfd does not work.</summary>
    public const string NotInTmpfs = "NotInTmpfs";

    /// <summary>A disk is read straight into guest memory, past the page tables that tracking and paging rely on.</summary>
    public const string DirectIo = "DirectIo";

    /// <summary>QEMU keeps all memory locked: nothing could be paged out.</summary>
    public const string LockedMemory = "LockedMemory";

    /// <summary>QEMU itself would refuse to migrate it.</summary>
    public const string MigrationBlocked = "MigrationBlocked";

    /// <summary>The domain can't be repeated by another libvirt.</summary>
    public const string Libvirt = "Libvirt";

    /// <summary>Something on the command line belongs to this host only.</summary>
    public const string CommandLine = "CommandLine";
}
