namespace FCtrans.Agent.Paging;

/// <summary>Counted with <see cref="Interlocked"/> by the threads of a pager, read by any.</summary>
internal sealed class PagingCounters
{
    public long UnusedFaults;
    public long UnusedAhead;
    public long PageInsOfFree;
    public long Unpacked;
    public long WriteProtectFaults;
    public long TakenBack;
    public long SpuriousFaults;
    public long CleanDrops;
    public long ZeroDrops;
    public long Errors;
    public long Prefetched;
    public long PrefetchHits;
    public long PrefetchMisses;

    /// <summary>Of a store whose place another has taken.</summary>
    public long PageInsBefore;
    public long BytesInBefore;
    public long BytesOutBefore;

    public long[] PageIns { get; } = new long[PageEntry.MaxSubs];

    public long[] PageOuts { get; } = new long[PageEntry.MaxSubs];
}
