using FCtrans.Contracts;

namespace FCtrans;

/// <summary>The remote paging of a split VM: figures since the main host's worker began, which is the switch-over unless it was started again.</summary>
public sealed class VmRemotePaging
{
    internal VmRemotePaging(KvmHost main, WorkerSpec spec, PagingStatus paging, bool running)
    {
        VM = spec.VmName;
        SplitId = spec.SplitId;
        MainHost = main.Name;
        SubHosts = [.. spec.Peers.Where(p => p.Role == WorkerRole.Sub).OrderBy(p => p.SubIndex).Select(p => p.Host)];
        SubHostStates = [.. paging.SubHostStates];
        State = running ? paging.State : "stopped";
        IsVmRunning = paging.VmRunning;
        VmProcessId = paging.VmProcessId;
        LimitBytes = paging.LimitBytes;
        ResidentBytes = Pages(paging.ResidentPages);
        PackedBytes = Pages(paging.PackedPages);
        UnpackedPages = paging.UnpackedPages;
        PeakResidentBytes = Pages(paging.PeakResidentPages);
        UnusedBytes = Pages(paging.UnusedPages);
        LostBytes = Pages(paging.LostPages);
        RemoteBytesBySubHost = [.. paging.RemotePages.Select(Pages)];
        PageIns = paging.PageIns;
        PageOuts = paging.PageOuts;
        PageInsBySubHost = [.. paging.PageInsBySubHost];
        PageOutsBySubHost = [.. paging.PageOutsBySubHost];
        CleanDrops = paging.CleanDrops;
        UnusedFaults = paging.UnusedFaults;
        PageInsOfFree = paging.PageInsOfFree;
        ReclaimTurns = paging.ReclaimTurns;
        ReclaimedBytes = Pages(paging.ReclaimedPages);
        WriteProtectFaults = paging.WriteProtectFaults;
        SpuriousFaults = paging.SpuriousFaults;
        BytesIn = paging.BytesIn;
        BytesOut = paging.BytesOut;
        Errors = paging.Errors;
        Error = paging.Error;
        Restarts = paging.Restarts;
        Copies = Math.Max(1, paging.Copies?.Wanted ?? 1);
        ShortBytes = Pages(paging.Copies?.ShortPages ?? 0);
        CopiesMade = paging.Copies?.Made ?? 0;
        Prefetch = paging.Prefetch;
        EvictionPolicy = (EvictionPolicy)paging.EvictionPolicy;
        PrefetchedPages = paging.PrefetchedPages;
        PrefetchHits = paging.PrefetchHits;
        PrefetchMisses = paging.PrefetchMisses;
        QueueDepth = paging.OutstandingFaults;
        TakenBack = paging.TakenBack;
        ZeroDrops = paging.ZeroDrops;
        RemoteFaultLatency = new FaultLatencyFigures(paging.RemoteLatency ?? new FaultLatency());
        UnusedFaultLatency = new FaultLatencyFigures(paging.UnusedLatency ?? new FaultLatency());
        RemoteFaultTimeline = FaultLatencyInterval.From(paging.RemoteLatencyTimeline);
    }

    /// <summary>The VM's name.</summary>
    public string VM { get; }

    /// <summary>Names the split VM on all its hosts.</summary>
    public string SplitId { get; }

    /// <summary>Where its processors run.</summary>
    public string MainHost { get; }

    /// <summary>Where the rest of its memory lies.</summary>
    public string[] SubHosts { get; }

    /// <summary>Of each of <see cref="SubHosts"/>: serving, leaving (its memory goes to the others), left, or lost.</summary>
    public string[] SubHostStates { get; }

    /// <summary>receiving, paging, degraded (a sub-host is away, and others have what it has), waiting (one is away, and who touches what it has waits), lost (memory is lost), ended, or stopped (no worker runs).</summary>
    public string State { get; }

    /// <summary>Whether the VM runs on the main host.</summary>
    public bool IsVmRunning { get; }

    /// <summary>Its QEMU on the main host.</summary>
    public int VmProcessId { get; }

    /// <summary>At most this much may stay on the main host.</summary>
    public ulong LimitBytes { get; }

    /// <summary>What lies on the main host as it is.</summary>
    public ulong ResidentBytes { get; }

    /// <summary>What lies on the main host packed, since the VM came, until it is touched: tables of the guest's kernel, above all. Takes a fifteenth of that.</summary>
    public ulong PackedBytes { get; }

    /// <summary>Packed pages of 4 KiB that the guest has touched since the worker was started, and that lie here as they are now.</summary>
    public ulong UnpackedPages { get; }

    /// <summary>The most that ever did.</summary>
    public ulong PeakResidentBytes { get; }

    /// <summary>Memory that the guest does not use; it lies nowhere.</summary>
    public ulong UnusedBytes { get; }

    /// <summary>Memory whose only copy is gone.</summary>
    public ulong LostBytes { get; }

    /// <summary>What lies on each sub-host, in the order of <see cref="SubHosts"/>.</summary>
    public ulong[] RemoteBytesBySubHost { get; }

    /// <summary>What lies on all sub-hosts, each copy counted.</summary>
    public ulong RemoteBytes => RemoteBytesBySubHost.Aggregate(0UL, (sum, b) => sum + b);

    /// <summary>At how many sub-hosts each page that is not on the main host is to be.</summary>
    public uint Copies { get; }

    /// <summary>Memory that lies at fewer sub-hosts than that which are there: it is lost if one more goes.</summary>
    public ulong ShortBytes { get; }

    /// <summary>Pages copied from one sub-host to another in the background, since the main host's worker began.</summary>
    public ulong CopiesMade { get; }

    /// <summary>Pages of 4 KiB fetched from sub-hosts.</summary>
    public ulong PageIns { get; }

    /// <summary>Pages pushed to sub-hosts.</summary>
    public ulong PageOuts { get; }

    /// <summary>
    /// Of the page-ins: pages that the guest had free when its main host last looked (it does every few seconds), so that the network
    /// carried dead content. 0 is the aim.
    /// </summary>
    public ulong PageInsOfFree { get; }

    /// <summary>
    /// How often the main host has looked for memory that the guest has freed, to give it back here and on the sub-hosts, since its
    /// worker began. 0: it does not (the migration did not track unused memory), or has not come to it yet.
    /// </summary>
    public ulong ReclaimTurns { get; }

    /// <summary>Memory that the guest had freed and that was given back so, in bytes, since the main host's worker began.</summary>
    public ulong ReclaimedBytes { get; }

    /// <summary>Page-ins from each sub-host.</summary>
    public ulong[] PageInsBySubHost { get; }

    /// <summary>Page-outs to each sub-host.</summary>
    public ulong[] PageOutsBySubHost { get; }

    /// <summary>Pages that left the main host without being sent, because the sub-host had the same content.</summary>
    public ulong CleanDrops { get; }

    /// <summary>Pages of unused memory that the guest took: zeros, given at its first touch or just before it, without the network.</summary>
    public ulong UnusedFaults { get; }

    /// <summary>Writes that met a page on its way out.</summary>
    public ulong WriteProtectFaults { get; }

    /// <summary>Faults that were answered already.</summary>
    public ulong SpuriousFaults { get; }

    /// <summary>Whether memory is fetched ahead of a guest that goes through it in order.</summary>
    public bool Prefetch { get; }

    /// <summary>Which pages leave the main host.</summary>
    public EvictionPolicy EvictionPolicy { get; }

    /// <summary>Pages asked for ahead of their first touch; page-ins count them too.</summary>
    public ulong PrefetchedPages { get; }

    /// <summary>Prefetched pages that the guest then went through.</summary>
    public ulong PrefetchHits { get; }

    /// <summary>Prefetched pages that the guest was not seen to go through.</summary>
    public ulong PrefetchMisses { get; }

    /// <summary>Faults that wait now: for a page from a sub-host, also one that is under way already, or for room on the main host.</summary>
    public uint QueueDepth { get; }

    /// <summary>Pages that the guest wrote to while they were leaving, and got back without the network.</summary>
    public ulong TakenBack { get; }

    /// <summary>Pages of zeros that became unused memory instead of being sent.</summary>
    public ulong ZeroDrops { get; }

    /// <summary>Bytes received from sub-hosts.</summary>
    public ulong BytesIn { get; }

    /// <summary>Bytes sent to sub-hosts.</summary>
    public ulong BytesOut { get; }

    /// <summary>Errors so far.</summary>
    public ulong Errors { get; }

    /// <summary>The last error; empty if there was none.</summary>
    public string Error { get; }

    /// <summary>How often the main host's worker was started again.</summary>
    public ulong Restarts { get; }

    /// <summary>How long the guest waited for memory on a sub-host.</summary>
    public FaultLatencyFigures RemoteFaultLatency { get; }

    /// <summary>
    /// The same over time, since the main host's worker began: at most 64 spans of equal length, from 1 s on, that follow each other up
    /// to now. The longer it runs, the longer they are.
    /// </summary>
    public IReadOnlyList<FaultLatencyInterval> RemoteFaultTimeline { get; }

    /// <summary>How long the guest waited for fresh memory.</summary>
    public FaultLatencyFigures UnusedFaultLatency { get; }

    /// <inheritdoc/>
    public override string ToString() => VM;

    private static ulong Pages(ulong pages) => pages * 4096;
}

/// <summary>How long faults took to answer.</summary>
public sealed class FaultLatencyFigures
{
    internal FaultLatencyFigures(FaultLatency latency)
    {
        Count = latency.Count;
        MedianMicroseconds = latency.P50Microseconds;
        P90Microseconds = latency.P90Microseconds;
        P99Microseconds = latency.P99Microseconds;
        P999Microseconds = latency.P999Microseconds;
        MaxMicroseconds = latency.MaxMicroseconds;
    }

    /// <summary>How many.</summary>
    public ulong Count { get; }

    /// <summary>Half of them took at most this.</summary>
    public double MedianMicroseconds { get; }

    /// <summary>90 % of them took at most this.</summary>
    public double P90Microseconds { get; }

    /// <summary>99 % of them took at most this.</summary>
    public double P99Microseconds { get; }

    /// <summary>99.9 % of them took at most this.</summary>
    public double P999Microseconds { get; }

    /// <summary>The longest.</summary>
    public double MaxMicroseconds { get; }

    /// <inheritdoc/>
    public override string ToString() => $"{MedianMicroseconds:0} µs (99 %: {P99Microseconds:0} µs)";
}
