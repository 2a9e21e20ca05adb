using System.Runtime.InteropServices;

namespace FCtrans.Agent.Interop;

/// <summary><c>UFFD_FEATURE_*</c> of <c>linux/userfaultfd.h</c>. Since which kernel: Documentation/admin-guide/mm/userfaultfd.rst.</summary>
[Flags]
internal enum UffdFeatures : ulong
{
    None = 0,

    /// <summary><c>UFFD_FEATURE_PAGEFAULT_FLAG_WP</c>, 5.7.</summary>
    PagefaultFlagWp = 1UL << 0,

    /// <summary><c>UFFD_FEATURE_EVENT_FORK</c></summary>
    EventFork = 1UL << 1,

    /// <summary><c>UFFD_FEATURE_EVENT_REMAP</c></summary>
    EventRemap = 1UL << 2,

    /// <summary><c>UFFD_FEATURE_EVENT_REMOVE</c></summary>
    EventRemove = 1UL << 3,

    /// <summary><c>UFFD_FEATURE_MISSING_HUGETLBFS</c></summary>
    MissingHugetlbfs = 1UL << 4,

    /// <summary><c>UFFD_FEATURE_MISSING_SHMEM</c>, 4.11.</summary>
    MissingShmem = 1UL << 5,

    /// <summary><c>UFFD_FEATURE_EVENT_UNMAP</c></summary>
    EventUnmap = 1UL << 6,

    /// <summary><c>UFFD_FEATURE_SIGBUS</c></summary>
    Sigbus = 1UL << 7,

    /// <summary><c>UFFD_FEATURE_THREAD_ID</c>, 4.14: messages carry the faulting thread.</summary>
    ThreadId = 1UL << 8,

    /// <summary><c>UFFD_FEATURE_MINOR_HUGETLBFS</c></summary>
    MinorHugetlbfs = 1UL << 9,

    /// <summary><c>UFFD_FEATURE_MINOR_SHMEM</c>, 5.14.</summary>
    MinorShmem = 1UL << 10,

    /// <summary><c>UFFD_FEATURE_EXACT_ADDRESS</c>, 5.18: messages carry the address in full, not its page's.</summary>
    ExactAddress = 1UL << 11,

    /// <summary><c>UFFD_FEATURE_WP_HUGETLBFS_SHMEM</c>, 5.19.</summary>
    WpHugetlbfsShmem = 1UL << 12,

    /// <summary><c>UFFD_FEATURE_WP_UNPOPULATED</c>, 6.4: write protection covers pages that are not there yet.</summary>
    WpUnpopulated = 1UL << 13,

    /// <summary><c>UFFD_FEATURE_POISON</c>, 6.6.</summary>
    Poison = 1UL << 14,

    /// <summary><c>UFFD_FEATURE_WP_ASYNC</c>, 6.7: the kernel resolves write-protect faults itself; <see cref="PagemapScan"/> tells which.</summary>
    WpAsync = 1UL << 15,

    /// <summary><c>UFFD_FEATURE_MOVE</c>, 6.8.</summary>
    Move = 1UL << 16,

    /// <summary>What tracking of written pages needs (Linux 6.7).</summary>
    Tracking = WpAsync | WpUnpopulated | WpHugetlbfsShmem | PagefaultFlagWp,

    /// <summary>What remote paging needs (Linux 5.19).</summary>
    Paging = MissingShmem | WpHugetlbfsShmem | PagefaultFlagWp | ThreadId,
}

internal static class UffdFeaturesExtensions
{
    /// <summary>Each feature by its name: for messages.</summary>
    public static string Describe(this UffdFeatures features)
        => string.Join(", ", Enum.GetValues<UffdFeatures>()
            .Where(f => System.Numerics.BitOperations.IsPow2((ulong)f) && features.HasFlag(f))
            .Select(f => f.ToString())
            .DefaultIfEmpty($"0x{(ulong)features:x}"));
}

/// <summary><c>UFFDIO_REGISTER_MODE_*</c></summary>
[Flags]
internal enum UffdRegisterMode : ulong
{
    Missing = 1,
    Wp = 2,
    Minor = 4,
}

/// <summary>What can be done with a registered range: bit N is the request <c>_UFFDIO_*</c> N.</summary>
[Flags]
internal enum UffdIoctls : ulong
{
    Register = 1UL << 0x00,
    Unregister = 1UL << 0x01,
    Wake = 1UL << 0x02,
    Copy = 1UL << 0x03,
    ZeroPage = 1UL << 0x04,
    Move = 1UL << 0x05,
    WriteProtect = 1UL << 0x06,
    Continue = 1UL << 0x07,
    Poison = 1UL << 0x08,
    Api = 1UL << 0x3f,
}

/// <summary><c>UFFDIO_COPY_MODE_*</c></summary>
[Flags]
internal enum UffdCopyMode : ulong
{
    None = 0,
    DontWake = 1,

    /// <summary>The page comes in write-protected. Only where <see cref="UffdRegisterMode.Wp"/> was registered too.</summary>
    Wp = 2,
}

/// <summary><c>UFFDIO_ZEROPAGE_MODE_*</c></summary>
[Flags]
internal enum UffdZeroMode : ulong
{
    None = 0,
    DontWake = 1,
}

/// <summary><c>UFFDIO_CONTINUE_MODE_*</c></summary>
[Flags]
internal enum UffdContinueMode : ulong
{
    None = 0,
    DontWake = 1,
    Wp = 2,
}

/// <summary><c>UFFDIO_POISON_MODE_*</c></summary>
[Flags]
internal enum UffdPoisonMode : ulong
{
    None = 0,
    DontWake = 1,
}

/// <summary><c>UFFD_EVENT_*</c></summary>
internal enum UffdEvent : byte
{
    PageFault = 0x12,
    Fork = 0x13,
    Remap = 0x14,
    Remove = 0x15,
    Unmap = 0x16,
}

/// <summary><c>UFFD_PAGEFAULT_FLAG_*</c></summary>
[Flags]
internal enum UffdFaultFlags : ulong
{
    None = 0,

    /// <summary>The access was a write.</summary>
    Write = 1,

    /// <summary>The page is there but write-protected.</summary>
    Wp = 2,
    Minor = 4,
}

/// <summary><c>struct uffd_msg</c>: 32 bytes, packed. The fields of a page fault; for the other events <see cref="Flags"/> and <see cref="Address"/> are their first two words.</summary>
[StructLayout(LayoutKind.Explicit, Size = 32)]
internal struct UffdMessage
{
    [FieldOffset(0)]
    public UffdEvent Event;

    /// <summary><c>arg.pagefault.flags</c></summary>
    [FieldOffset(8)]
    public UffdFaultFlags Flags;

    /// <summary><c>arg.pagefault.address</c>, in the faulting process; its page's unless <see cref="UffdFeatures.ExactAddress"/>.</summary>
    [FieldOffset(16)]
    public ulong Address;

    /// <summary><c>arg.pagefault.feat.ptid</c>: the faulting thread in its own PID namespace; 0 without <see cref="UffdFeatures.ThreadId"/>.</summary>
    [FieldOffset(24)]
    public uint ThreadId;
}

/// <summary><c>struct uffdio_api</c></summary>
[StructLayout(LayoutKind.Sequential)]
internal struct UffdioApi
{
    public ulong Api;
    public ulong Features;
    public ulong Ioctls;
}

/// <summary><c>struct uffdio_range</c></summary>
[StructLayout(LayoutKind.Sequential)]
internal struct UffdioRange
{
    public ulong Start;
    public ulong Length;
}

/// <summary><c>struct uffdio_register</c></summary>
[StructLayout(LayoutKind.Sequential)]
internal struct UffdioRegister
{
    public UffdioRange Range;
    public ulong Mode;
    public ulong Ioctls;
}

/// <summary><c>struct uffdio_copy</c></summary>
[StructLayout(LayoutKind.Sequential)]
internal struct UffdioCopy
{
    public ulong Destination;
    public ulong Source;
    public ulong Length;
    public ulong Mode;

    /// <summary>Written back by the kernel: bytes copied, or a negative errno.</summary>
    public long Copied;
}

/// <summary><c>struct uffdio_zeropage</c>; <c>uffdio_continue</c> and <c>uffdio_poison</c> have the same layout.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct UffdioRangeRequest
{
    public UffdioRange Range;
    public ulong Mode;

    /// <summary>Written back by the kernel: bytes done, or a negative errno.</summary>
    public long Done;
}

/// <summary><c>struct uffdio_writeprotect</c></summary>
[StructLayout(LayoutKind.Sequential)]
internal struct UffdioWriteProtect
{
    public UffdioRange Range;
    public ulong Mode;
}

/// <summary><c>UFFDIO_*</c> request numbers (<c>_IOWR(0xAA, …)</c>; UNREGISTER and WAKE are <c>_IOR</c>).</summary>
internal static class UffdRequest
{
    public const ulong ApiVersion = 0xAA;
    public const uint Api = 0xC018AA3F;
    public const uint Register = 0xC020AA00;
    public const uint Unregister = 0x8010AA01;
    public const uint Wake = 0x8010AA02;
    public const uint Copy = 0xC028AA03;
    public const uint ZeroPage = 0xC020AA04;
    public const uint WriteProtect = 0xC018AA06;
    public const uint Continue = 0xC020AA07;
    public const uint Poison = 0xC020AA08;

    /// <summary><c>USERFAULTFD_IOC_NEW</c>, of /dev/userfaultfd, 6.1: a userfaultfd of the caller's memory.</summary>
    public const uint NewDescriptor = 0xAA00;

    /// <summary><c>UFFDIO_WRITEPROTECT_MODE_WP</c></summary>
    public const ulong WriteProtectModeWp = 1;

    /// <summary><c>UFFDIO_WRITEPROTECT_MODE_DONTWAKE</c></summary>
    public const ulong WriteProtectModeDontWake = 2;

    /// <summary><c>UFFD_USER_MODE_ONLY</c></summary>
    public const int UserModeOnly = 1;
}
