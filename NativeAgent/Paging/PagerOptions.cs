using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;
using FCtrans.Contracts;

namespace FCtrans.Agent.Paging;

/// <summary>What a <see cref="Pager"/> works with. Owns none of it.</summary>
internal sealed record PagerOptions
{
    public required GuestRam Ram { get; init; }

    /// <summary>Opened by QEMU, with <see cref="UffdFeatures.Paging"/>, all of RAM registered for missing and write-protect faults.</summary>
    public required UserfaultfdSet Uffds { get; init; }

    public required PageTable Table { get; init; }

    /// <summary>What lies packed beside the RAM files; null: nothing does.</summary>
    public PackedPages? Packed { get; init; }

    /// <summary>Index i at place i; started by their owner.</summary>
    public required IReadOnlyList<RemoteStore> Stores { get; init; }

    /// <summary>At most this many pages stay here; more than it by 3 % for moments only. At least 256.</summary>
    public required long LimitPages { get; init; }

    /// <summary>Pages that stay here as long as they fill no more than three quarters of the limit; complete before the pager starts.</summary>
    public PageBitmap? Pinned { get; init; }

    /// <summary>Indices of stores that are not there any more. They are in <see cref="Stores"/> to keep the others' places, not started.</summary>
    public IReadOnlyCollection<int> Gone { get; init; } = [];

    /// <summary>For <see cref="Pager.Resume"/>: pages that workers before have noted to be lost (<see cref="LostPages.Read"/>); null for none.</summary>
    public PageBitmap? Lost { get; init; }

    /// <summary>Whether the kernel is asked to make lost pages memory errors. One before Linux 6.6 refuses; without it, the same comes of that.</summary>
    public bool MemoryErrors { get; init; } = true;

    /// <summary>Whether pages are fetched ahead of their faults where the guest goes through its memory in order.</summary>
    public bool Prefetch { get; init; } = true;

    public EvictionPolicy Policy { get; init; }

    /// <summary>At how many sub-hosts each remote page is to be: 1 or 2.</summary>
    public int Copies { get; init; } = 1;

    /// <summary>How long a sub-host may be away before what it has is copied to another: one that is only started again still has it.</summary>
    public TimeSpan CopyPatience { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>For <see cref="Pager.Resume"/>: whether pages ever were to be at two sub-hosts.</summary>
    public bool MayHavePairs { get; init; }

    /// <summary>Where what must outlive the process is kept, beside the RAM file and the stores; null: nothing outlives it.</summary>
    public string? StateDirectory { get; init; }

    /// <summary>Whether a page of zeros may become unused instead of being sent.</summary>
    public required bool TrackUnused { get; init; }
}
