using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Asks a VM's host for the map of its memory.</summary>
internal static class VmMemoryMapReader
{
    /// <summary>All of it.</summary>
    /// <exception cref="Client.FCtransException">VmNotFound, VmMemoryUnreadable, …</exception>
    public static async Task<(MemoryMapHead Head, List<VmMemoryRange> Ranges)> ReadAsync(
        KvmVm vm, ulong granularityBytes, bool merge, CancellationToken stop)
    {
        var request = new GetMemoryMapRequest { Vm = vm.Name, GranularityBytes = granularityBytes, Merge = merge };
        var head = new MemoryMapHead { Memory = new UnusedMemory() };
        var ranges = new List<VmMemoryRange>();
        await foreach (MemoryMapPart part in vm.KvmHost.Connection.GetMemoryMapAsync(request, stop).ConfigureAwait(false))
        {
            head = part.Head ?? head;
            ranges.AddRange(part.Ranges.Select(range => new VmMemoryRange(vm, head, range)));
        }

        return (head, ranges);
    }
}
