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
        Time = memory.UnixMilliseconds == 0 ? DateTimeOffset.Now : DateTimeOffset.FromUnixTimeMilliseconds(memory.UnixMilliseconds).ToLocalTime();
        BecameUsedBytes = memory.BecameUsedPages * page;
        BecameUnusedBytes = memory.BecameUnusedPages * page;
        ReclaimedBytes = memory.ReclaimedPages * page;
        Changes = [.. memory.Changes.Select(change => new VmMemoryChange(change, page))];
        HasMoreChanges = memory.MoreChanges;
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

    /// <summary>When it was looked at, by the host's clock.</summary>
    public DateTimeOffset Time { get; }

    /// <summary>Not written since the guest started, or since its memory was given back: it lies nowhere.</summary>
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

    /// <summary>What has become used since the look before; 0 at the first.</summary>
    public ulong BecameUsedBytes { get; }

    /// <summary>What has become unused since the look before; 0 at the first.</summary>
    public ulong BecameUnusedBytes { get; }

    /// <summary>Of a split VM: what its main host has given back, there and on the sub-hosts, since its worker was started.</summary>
    public ulong ReclaimedBytes { get; }

    /// <summary>With -IncludeChanges: the memory that is something else than at the look before, in its order.</summary>
    public VmMemoryChange[] Changes { get; }

    /// <summary>There were more changes than <see cref="Changes"/> lists.</summary>
    public bool HasMoreChanges { get; }

    /// <inheritdoc/>
    public override string ToString() => VM;
}

/// <summary>A part of a VM's memory that has become something else.</summary>
public sealed class VmMemoryChange
{
    internal VmMemoryChange(MemoryChange change, ulong pageBytes)
    {
        StartBytes = change.FirstPage * pageBytes;
        LengthBytes = change.Pages * pageBytes;
        Kind = (VmMemoryKind)change.Kind;
    }

    /// <summary>Where it begins, in bytes, with the VM's memory blocks laid end to end.</summary>
    public ulong StartBytes { get; }

    /// <summary>Its bytes.</summary>
    public ulong LengthBytes { get; }

    /// <summary>What it is now.</summary>
    public VmMemoryKind Kind { get; }

    /// <inheritdoc/>
    public override string ToString() => $"0x{StartBytes:x} + {LengthBytes}: {Kind}";
}
