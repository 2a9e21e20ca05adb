using FCtrans.Contracts;

namespace FCtrans;

/// <summary>A part of a VM's memory: what it is to the guest, and where it lies.</summary>
public sealed class VmMemoryRange
{
    private const ulong PageBytes = 4096;

    internal VmMemoryRange(KvmVm vm, MemoryMapHead head, MemoryMapRange range)
    {
        VM = vm.Name;
        HostName = vm.HostName;
        StartBytes = range.FirstPage * PageBytes;
        LengthBytes = range.Pages * PageBytes;
        GuestPhysicalAddress = range.HasGuestPhysicalAddress ? range.GuestPhysicalAddress : null;
        RamBlock = range.RamBlock < head.RamBlocks.Count ? head.RamBlocks[(int)range.RamBlock] : "";
        Kind = (VmMemoryKind)range.Kind;
        Place = range.Place switch
        {
            0 => vm.HostName,
            -2 => LostPlace,
            > 0 when range.Place <= head.Hosts.Count => head.Hosts[range.Place - 1],
            _ => "",
        };
        UsedBytes = range.UsedPages * PageBytes;
        HotBytes = range.HotPages * PageBytes;
        NeverTouchedBytes = range.NeverTouchedPages * PageBytes;
        FreeBytes = range.FreePages * PageBytes;
        BalloonedBytes = range.BalloonedPages * PageBytes;
        ResidentBytes = range.ResidentPages * PageBytes;
        SubHosts = [.. head.Hosts];
        RemoteBytesBySubHost = range.RemotePages.Count == 0 ? new ulong[head.Hosts.Count] : [.. range.RemotePages.Select(pages => pages * PageBytes)];
        LostBytes = range.LostPages * PageBytes;
        PlaceIndex = range.Place;
    }

    /// <summary>The <see cref="Place"/> of memory whose only copy is gone.</summary>
    internal const string LostPlace = "(lost)";

    /// <summary>The VM's name.</summary>
    public string VM { get; }

    /// <summary>The host it runs on.</summary>
    public string HostName { get; }

    /// <summary>Where it begins, in bytes, with the VM's memory blocks laid end to end.</summary>
    public ulong StartBytes { get; }

    /// <summary>Its bytes.</summary>
    public ulong LengthBytes { get; }

    /// <summary>Where the guest sees it; null when it does not.</summary>
    public ulong? GuestPhysicalAddress { get; }

    /// <summary>QEMU's name of the memory block that it is a part of.</summary>
    public string RamBlock { get; }

    /// <summary>What most of it is.</summary>
    public VmMemoryKind Kind { get; }

    /// <summary>The host where most of it lies; empty: nowhere; (lost): its only copy is gone.</summary>
    public string Place { get; }

    /// <summary>In use.</summary>
    public ulong UsedBytes { get; }

    /// <summary>Of what is used: what the guest is most likely to want next, as far as that is known.</summary>
    public ulong HotBytes { get; }

    /// <summary>Lies nowhere.</summary>
    public ulong NeverTouchedBytes { get; }

    /// <summary>Free in the guest, and it takes memory.</summary>
    public ulong FreeBytes { get; }

    /// <summary>Given back through a balloon, and it takes memory.</summary>
    public ulong BalloonedBytes { get; }

    /// <summary>What takes memory on the host it runs on.</summary>
    public ulong ResidentBytes { get; }

    /// <summary>The hosts that hold memory of a split VM; none when it is not split.</summary>
    public string[] SubHosts { get; }

    /// <summary>What lies on each of <see cref="SubHosts"/> and nowhere else.</summary>
    public ulong[] RemoteBytesBySubHost { get; }

    /// <summary>What lies on all sub-hosts.</summary>
    public ulong RemoteBytes => RemoteBytesBySubHost.Aggregate(0UL, (sum, b) => sum + b);

    /// <summary>Memory whose only copy is gone.</summary>
    public ulong LostBytes { get; }

    internal int PlaceIndex { get; }

    /// <inheritdoc/>
    public override string ToString() => $"0x{StartBytes:x} + {LengthBytes}: {Kind}";
}
