namespace FCtrans;

/// <summary>The remote paging of a split VM over one interval: what happened a second.</summary>
public sealed class VmRemotePagingSample
{
    internal VmRemotePagingSample(VmRemotePaging before, VmRemotePaging now, DateTime time, double seconds)
    {
        VM = now.VM;
        Time = time;
        Seconds = seconds;
        State = now.State;
        ResidentBytes = now.ResidentBytes;
        RemoteBytes = now.RemoteBytes;
        UnusedBytes = now.UnusedBytes;
        PageInsPerSecond = Rate(before.PageIns, now.PageIns, seconds);
        PageOutsPerSecond = Rate(before.PageOuts, now.PageOuts, seconds);
        CleanDropsPerSecond = Rate(before.CleanDrops, now.CleanDrops, seconds);
        PrefetchedPagesPerSecond = Rate(before.PrefetchedPages, now.PrefetchedPages, seconds);
        UnusedFaultsPerSecond = Rate(before.UnusedFaults, now.UnusedFaults, seconds);
        BytesInPerSecond = Rate(before.BytesIn, now.BytesIn, seconds);
        BytesOutPerSecond = Rate(before.BytesOut, now.BytesOut, seconds);
        Errors = now.Errors;
        RemoteFaultMedianMicroseconds = now.RemoteFaultLatency.MedianMicroseconds;
        RemoteFaultP99Microseconds = now.RemoteFaultLatency.P99Microseconds;
    }

    /// <summary>The VM's name.</summary>
    public string VM { get; }

    /// <summary>When the interval ended.</summary>
    public DateTime Time { get; }

    /// <summary>How long it was.</summary>
    public double Seconds { get; }

    /// <summary>As in VmRemotePaging: paging, degraded, waiting, lost, ended or stopped.</summary>
    public string State { get; }

    /// <summary>What lies on the main host.</summary>
    public ulong ResidentBytes { get; }

    /// <summary>What lies on the sub-hosts.</summary>
    public ulong RemoteBytes { get; }

    /// <summary>What the guest does not use.</summary>
    public ulong UnusedBytes { get; }

    /// <summary>Pages of 4 KiB fetched a second.</summary>
    public double PageInsPerSecond { get; }

    /// <summary>Pages pushed out a second.</summary>
    public double PageOutsPerSecond { get; }

    /// <summary>Pages dropped a second without being sent: a sub-host had the same content.</summary>
    public double CleanDropsPerSecond { get; }

    /// <summary>Pages asked for a second ahead of the guest; counted among those fetched too once they are here.</summary>
    public double PrefetchedPagesPerSecond { get; }

    /// <summary>Pages of unused memory that the guest took, a second.</summary>
    public double UnusedFaultsPerSecond { get; }

    /// <summary>Received from sub-hosts a second.</summary>
    public double BytesInPerSecond { get; }

    /// <summary>Sent to sub-hosts a second.</summary>
    public double BytesOutPerSecond { get; }

    /// <summary>Errors since the main host's worker began.</summary>
    public ulong Errors { get; }

    /// <summary>Half of all faults since the main host's worker began took at most this.</summary>
    public double RemoteFaultMedianMicroseconds { get; }

    /// <summary>99 % of them took at most this.</summary>
    public double RemoteFaultP99Microseconds { get; }

    /// <inheritdoc/>
    public override string ToString() => $"{VM}: {PageInsPerSecond:0} in, {PageOutsPerSecond:0} out a second";

    // A worker that was started again counts from nothing.
    private static double Rate(ulong before, ulong now, double seconds) => now < before || seconds <= 0 ? 0 : (now - before) / seconds;
}
