using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Reclaim;
using FCtrans.Contracts;

namespace FCtrans.Agent.Tracking;

/// <summary>
/// The memory of one VM, as those see it who only want to know, and those who give back what its guest does not use. A VM on one host
/// and a split VM on its main host each have their own way. Several callers at once take turns.
/// </summary>
internal interface IVmMemory
{
    /// <summary>The hosts beside the VM's own that hold some of its memory; none when it is not split.</summary>
    IReadOnlyList<string> SubHosts { get; }

    /// <summary>Given back by itself since this worker was started; 0 where nothing is.</summary>
    long ReclaimedPages { get; }

    /// <summary>A set for <see cref="Look"/> to fill; the caller's.</summary>
    UnusedSet NewSet();

    /// <summary>Finds what the guest does not use now.</summary>
    /// <param name="set">Kept up to date from look to look.</param>
    /// <param name="sink">Told of what has changed since the look before; may be null.</param>
    /// <exception cref="KernelException">The VM's memory can't be read.</exception>
    /// <exception cref="MonitorException">QEMU does not answer.</exception>
    /// <exception cref="InvalidOperationException">The VM has ended.</exception>
    UnusedFigures Look(UnusedSet set, IMemoryUseSink? sink);

    /// <summary>Draws the map of what was seen at the last <see cref="Look"/>.</summary>
    /// <param name="set">As that look filled it.</param>
    /// <param name="request">The granularity, and whether neighbours are joined.</param>
    /// <param name="found">Told of each part, in their order.</param>
    MemoryMapHead Map(UnusedSet set, GetMemoryMapRequest request, Action<MemoryMapRange> found);

    /// <summary>Looks for free memory and gives it back.</summary>
    /// <param name="limits">How much and how fast.</param>
    /// <param name="settledOnly">Only what was free at the turn before too.</param>
    /// <param name="stop">Ends it after the batch under way.</param>
    /// <exception cref="InvalidOperationException">The memory has another owner at the moment, or the VM has ended.</exception>
    (ReclaimFigures Figures, UnusedFigures Seen) Turn(ReclaimLimits limits, bool settledOnly, CancellationToken stop);
}
