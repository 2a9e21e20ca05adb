using FCtrans.Contracts;

namespace FCtrans;

/// <summary>How much of a VM's memory its guest uses, at one moment.</summary>
public sealed class VmUnusedMemory
{
    internal VmUnusedMemory(KvmVm vm, UnusedMemory memory)
    {
        VM = vm.Name;
        HostName = vm.HostName;
        ulong page = memory.PageSizeBytes == 0 ? 4096 : memory.PageSizeBytes;
        MemoryBytes = memory.TotalPages * page;
        UsedBytes = memory.UsedPages * page;
        NeverTouchedBytes = memory.NeverTouchedPages * page;
        FreeBytes = memory.FreePages * page;
        BalloonedBytes = memory.BalloonedPages * page;
        GuestKernel = memory.GuestKernel;
        Method = memory.Method;
        Reason = memory.Reason;
        ScanMilliseconds = memory.ScanMilliseconds;
        FindMilliseconds = memory.FindMilliseconds;
    }

    /// <summary>The VM's name.</summary>
    public string VM { get; }

    /// <summary>The host it runs on.</summary>
    public string HostName { get; }

    /// <summary>The guest's memory.</summary>
    public ulong MemoryBytes { get; }

    /// <summary>What the guest uses: this much would be moved.</summary>
    public ulong UsedBytes { get; }

    /// <summary>All the rest.</summary>
    public ulong UnusedBytes => MemoryBytes - Math.Min(UsedBytes, MemoryBytes);

    /// <summary>Not written since the guest started.</summary>
    public ulong NeverTouchedBytes { get; }

    /// <summary>Used once, and free in the guest kernel's page allocator now.</summary>
    public ulong FreeBytes { get; }

    /// <summary>Given back through a balloon.</summary>
    public ulong BalloonedBytes { get; }

    /// <summary>The guest kernel's release; empty if it was not found.</summary>
    public string GuestKernel { get; }

    /// <summary><c>buddy</c>: its page allocator was read; <c>never-touched-only</c>: it was not, see <see cref="Reason"/>.</summary>
    public string Method { get; }

    /// <summary>Why the guest's page allocator was not read, if so.</summary>
    public string Reason { get; }

    /// <summary>How long looking took.</summary>
    public double ScanMilliseconds { get; }

    /// <summary>How long finding the guest kernel's structures took, before the first look.</summary>
    public double FindMilliseconds { get; }

    /// <inheritdoc/>
    public override string ToString() => VM;
}
