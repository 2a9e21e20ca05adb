namespace FCtrans.Agent.Paging;

/// <summary>Counted with <see cref="Interlocked"/> by the threads of a pager, read by any.</summary>
internal sealed class PagingCounters(int stores)
{
    public long UnusedFaults;
    public long PageInsOfFree;
    public long WriteProtectFaults;
    public long TakenBack;
    public long SpuriousFaults;
    public long CleanDrops;
    public long ZeroDrops;
    public long Errors;
    public long Prefetched;
    public long PrefetchHits;
    public long PrefetchMisses;

    public long[] PageIns { get; } = new long[stores];

    public long[] PageOuts { get; } = new long[stores];
}
