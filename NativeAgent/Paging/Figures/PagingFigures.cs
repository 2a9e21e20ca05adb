namespace FCtrans.Agent.Paging;

/// <summary>A pager's counts at one moment; PagingStatus in worker.proto has the same.</summary>
internal sealed record PagingFigures
{
    /// <summary>paging | waiting (a sub-host is away or full) | lost (pages are lost) | ended (the VM's process is gone)</summary>
    public required string State { get; init; }

    /// <summary>Why it is not plainly paging; null if it is.</summary>
    public required string? Error { get; init; }

    public required long LimitPages { get; init; }

    /// <summary>In the RAM file; those that are packed beside it not counted.</summary>
    public required long ResidentPages { get; init; }

    /// <summary>Packed beside the RAM file.</summary>
    public required long PackedPages { get; init; }

    /// <summary>Of those that were, how many have been put into the RAM file.</summary>
    public required long Unpacked { get; init; }

    public required long PeakResidentPages { get; init; }

    public required long UnusedPages { get; init; }

    public required long LostPages { get; init; }

    /// <summary>By sub-host.</summary>
    public required long[] RemotePages { get; init; }

    /// <summary>At how many sub-hosts each remote page is to be.</summary>
    public required int Copies { get; init; }

    /// <summary>Remote pages at fewer than that which serve.</summary>
    public required long ShortPages { get; init; }

    /// <summary>Copies at sub-hosts that serve which count for nothing, and are still to be forgotten there.</summary>
    public required long StaleCopies { get; init; }

    /// <summary>Copies made in the background.</summary>
    public required long CopiesMade { get; init; }

    public required long PageIns { get; init; }

    /// <summary>Of <see cref="PageIns"/>: pages that the guest had free at the last look before, so that their content was dead.</summary>
    public required long PageInsOfFree { get; init; }

    /// <summary>Pages sent to a sub-host and dropped here.</summary>
    public required long PageOuts { get; init; }

    /// <summary>Pages dropped without sending: the sub-host still had the same content.</summary>
    public required long CleanDrops { get; init; }

    /// <summary>Pages of zeros that became unused.</summary>
    public required long ZeroDrops { get; init; }

    /// <summary>Unused pages that became the guest's, as zeros: by a fault, or ahead of one. <see cref="UnusedLatency"/> counts the faults.</summary>
    public required long UnusedFaults { get; init; }

    public required long WriteProtectFaults { get; init; }

    /// <summary>Pages that the guest took back while they were being evicted.</summary>
    public required long TakenBack { get; init; }

    /// <summary>Faults that were over before we looked.</summary>
    public required long SpuriousFaults { get; init; }

    public required long Errors { get; init; }

    public required LatencyFigures RemoteLatency { get; init; }

    public required LatencyFigures UnusedLatency { get; init; }

    /// <summary><see cref="RemoteLatency"/> over time.</summary>
    public required LatencyTimelineFigures RemoteTimeline { get; init; }

    public required long[] PageInsBySub { get; init; }

    public required long[] PageOutsBySub { get; init; }

    public required long BytesIn { get; init; }

    public required long BytesOut { get; init; }

    /// <summary>Pages asked for ahead of a fault; counted in <see cref="PageIns"/> too once they are here.</summary>
    public required long Prefetched { get; init; }

    /// <summary>Of these, pages of a window that the guest has gone through.</summary>
    public required long PrefetchHits { get; init; }

    /// <summary>Pages of a window that the guest was not seen to go through.</summary>
    public required long PrefetchMisses { get; init; }

    /// <summary>Faults that wait now: for a page from a sub-host, or for room here.</summary>
    public required int Outstanding { get; init; }
}
