using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans;

/// <summary>A split migration: how it stands, or how it ended.</summary>
public sealed class SplitMigration
{
    /// <summary>From the specification and the figures of the worker that knows most: the source's, else the main host's.</summary>
    internal SplitMigration(
        WorkerSpec spec, MigrationStatus status, KvmHost? source, string sourceName, string mainName, string[] subNames,
        ulong mainMemoryBytes)
    {
        Status = status;
        SplitId = spec.SplitId;
        VM = spec.VmName;
        State = status.State.ToString();
        HasEnded = status.State.HasEnded();
        Started = DateTimeOffset.FromUnixTimeMilliseconds(spec.StartedUnixMilliseconds).LocalDateTime;
        SourceHost = sourceName;
        MainHost = mainName;
        SubHosts = subNames;
        Source = source;
        TrackUnused = spec.TrackUnused;
        MainMemoryBytes = mainMemoryBytes;
        Round = status.Round;
        TotalSeconds = status.TotalSeconds;
        PreparationSeconds = status.PreparationSeconds;
        DowntimeMilliseconds = status.DowntimeMilliseconds;
        SourceProcessorSeconds = status.SourceProcessorSeconds;
        SourcePeakMemoryBytes = status.SourcePeakMemoryBytes;
        GuestMemoryBytes = Pages(status.GuestPages);
        UsedBytes = Pages(status.UsedPages);
        UnusedBytesSkipped = Pages(status.UnusedPagesSkipped);
        NeverTouchedBytes = Pages(status.NeverTouchedPages);
        FreeBytes = Pages(status.FreePages);
        ZeroBytes = Pages(status.ZeroPages);
        RemainingBytes = Pages(status.RemainingPages);
        DirtyBytesPerSecond = status.DirtyPagesPerSecond * 4096;
        BytesPerSecond = status.BytesPerSecond;
        Mode = status.Mode.ToString();
        DataPlaneSecurity = status.Tls || spec.Tls ? "Tls" : "None";
        LeftBytesAtSwitchOver = Pages(status.LeftPagesAtSwitchOver);
        PostCopySeconds = status.PostCopySeconds;
        EstimatedSecondsLeft = HasEnded ? 0 : status.EstimatedSecondsLeft >= 0 ? status.EstimatedSecondsLeft : null;
        Reconnects = (int)status.Reconnects;
        DeviceStateBytes = status.DeviceStateBytes;
        UnusedMethod = status.UnusedMethod;
        UnusedReason = status.UnusedReason;
        Error = status.Error;
        Traffic = [.. status.Traffic.Select(t => new SplitMigrationTraffic(t))];
        Rounds = [.. status.Rounds.Select(r => new SplitMigrationRound(r))];
        BytesSentToMainHost = status.Traffic.Where(t => t.Role == WorkerRole.Main).Aggregate(0UL, (sum, t) => sum + t.BytesSent);
        BytesSentToSubHosts = [.. status.Traffic.Where(t => t.Role == WorkerRole.Sub).Select(t => t.BytesSent)];
    }

    internal SplitMigration(SplitMigrationOutcome outcome, KvmHost source)
        : this(
            outcome.SourceSpec, outcome.Migration, source, source.Name, outcome.Plan.Request.MainHost.Name,
            [.. outcome.Plan.Request.SubHosts.Select(h => h.Name)], outcome.Plan.MainMemoryBytes)
    {
    }

    /// <summary>Names the split VM on all its hosts: 32 hexadecimal digits.</summary>
    public string SplitId { get; }

    /// <summary>The VM's name.</summary>
    public string VM { get; }

    /// <summary>Preparing, PreCopy, SwitchOver, PostCopy (it runs on the main host, which still fetches from the source), Completed, Failed, Aborted, or Unspecified when no host can say.</summary>
    public string State { get; }

    /// <summary>Nothing more happens to it, well or badly.</summary>
    internal bool HasEnded { get; }

    /// <summary>When it began.</summary>
    public DateTime Started { get; }

    /// <summary>Where the VM ran.</summary>
    public string SourceHost { get; }

    /// <summary>Where its processors run afterwards.</summary>
    public string MainHost { get; }

    /// <summary>Where the rest of its memory lies afterwards.</summary>
    public string[] SubHosts { get; }

    /// <summary>Whether memory that the guest did not use was left out.</summary>
    public bool TrackUnused { get; }

    /// <summary>At most this much of the guest's memory stays on the main host.</summary>
    public ulong MainMemoryBytes { get; }

    /// <summary>The round that it is in; the last one while it stands still.</summary>
    public int Round { get; }

    /// <summary>From its beginning to its end, or so far.</summary>
    public double TotalSeconds { get; }

    /// <summary>Connecting and arming, before the first round.</summary>
    public double PreparationSeconds { get; }

    /// <summary>How long the VM stood still.</summary>
    public double DowntimeMilliseconds { get; }

    /// <summary>Processor time that the agent took at the source since the transfer began.</summary>
    public double SourceProcessorSeconds { get; }

    /// <summary>The most memory of its own that the agent was seen to have at the source.</summary>
    public ulong SourcePeakMemoryBytes { get; }

    /// <summary>The guest's memory.</summary>
    public ulong GuestMemoryBytes { get; }

    /// <summary>What the guest used, as the last look saw it.</summary>
    public ulong UsedBytes { get; }

    /// <summary>Never sent, because the guest did not use it at the switch-over.</summary>
    public ulong UnusedBytesSkipped { get; }

    /// <summary>Of the unused memory: not written since the guest started.</summary>
    public ulong NeverTouchedBytes { get; }

    /// <summary>Of the unused memory: free in the guest kernel's page allocator.</summary>
    public ulong FreeBytes { get; }

    /// <summary>Used memory that held zeros only and so was not sent as data.</summary>
    public ulong ZeroBytes { get; }

    /// <summary>Still to be sent.</summary>
    public ulong RemainingBytes { get; }

    /// <summary>How fast the guest changes its memory.</summary>
    public double DirtyBytesPerSecond { get; }

    /// <summary>How fast it is sent.</summary>
    public double BytesPerSecond { get; }

    /// <summary>Sent to the main host: on the wire, before encryption.</summary>
    public ulong BytesSentToMainHost { get; }

    /// <summary>Sent to each sub-host, in the order of <see cref="SubHosts"/>.</summary>
    public ulong[] BytesSentToSubHosts { get; }

    /// <summary>Sent to all hosts.</summary>
    public ulong BytesSent => BytesSentToSubHosts.Aggregate(BytesSentToMainHost, (sum, b) => sum + b);

    /// <summary>Hybrid, PreCopy or PostCopy.</summary>
    public string Mode { get; }

    /// <summary>Tls: guest memory is encrypted on its way and both ends are proved. None: neither.</summary>
    public string DataPlaneSecurity { get; }

    /// <summary>What the source still had when the VM ran on the main host already.</summary>
    public ulong LeftBytesAtSwitchOver { get; }

    /// <summary>From the VM running on the main host to the source having nothing any more.</summary>
    public double PostCopySeconds { get; }

    /// <summary>Until the end, as it goes now; 0 when it has ended; null: the guest writes as fast as it is sent.</summary>
    public double? EstimatedSecondsLeft { get; }

    /// <summary>How often a lost connection between hosts was opened again.</summary>
    public int Reconnects { get; }

    /// <summary>The state of the virtual processors and devices.</summary>
    public ulong DeviceStateBytes { get; }

    /// <summary><c>buddy</c>, <c>never-touched-only</c> or <c>off</c>.</summary>
    public string UnusedMethod { get; }

    /// <summary>Why not buddy, if so.</summary>
    public string UnusedReason { get; }

    /// <summary>Why it failed; empty if it did not.</summary>
    public string Error { get; }

    /// <summary>What went to each host.</summary>
    public IReadOnlyList<SplitMigrationTraffic> Traffic { get; }

    /// <summary>Its rounds.</summary>
    public IReadOnlyList<SplitMigrationRound> Rounds { get; }

    internal KvmHost? Source { get; }

    /// <summary>What it was made of.</summary>
    internal MigrationStatus Status { get; }

    /// <inheritdoc/>
    public override string ToString() => SplitId;

    private static ulong Pages(ulong pages) => pages * 4096;
}

/// <summary>What a migration sent to one host.</summary>
public sealed class SplitMigrationTraffic
{
    internal SplitMigrationTraffic(HostTraffic traffic)
    {
        HostName = traffic.Host;
        Role = traffic.Role.ToString();
        BytesSent = traffic.BytesSent;
        PageBytesSent = traffic.PageBytesSent;
        PagesSent = traffic.PagesSent;
        PagesPlaced = traffic.PagesPlaced;
    }

    /// <summary>The host's name.</summary>
    public string HostName { get; }

    /// <summary>Main or Sub.</summary>
    public string Role { get; }

    /// <summary>On the wire, before encryption.</summary>
    public ulong BytesSent { get; }

    /// <summary>Of these, the guest's memory.</summary>
    public ulong PageBytesSent { get; }

    /// <summary>Pages of 4 KiB; one sent twice counts twice.</summary>
    public ulong PagesSent { get; }

    /// <summary>Pages whose place the host is in the end.</summary>
    public ulong PagesPlaced { get; }

    /// <inheritdoc/>
    public override string ToString() => HostName;
}

/// <summary>One round of a migration.</summary>
public sealed class SplitMigrationRound
{
    internal SplitMigrationRound(RoundStatus round)
    {
        Round = round.Round;
        Seconds = round.Seconds;
        PagesSent = round.PagesSent;
        BytesSent = round.BytesSent;
        DirtyPages = round.DirtyPages;
        UnusedPages = round.UnusedPages;
    }

    /// <summary>Its number, from 1.</summary>
    public int Round { get; }

    /// <summary>How long it took.</summary>
    public double Seconds { get; }

    /// <summary>Pages of 4 KiB sent in it.</summary>
    public ulong PagesSent { get; }

    /// <summary>Bytes sent in it.</summary>
    public ulong BytesSent { get; }

    /// <summary>Pages found changed at its beginning.</summary>
    public ulong DirtyPages { get; }

    /// <summary>Pages found unused at its beginning.</summary>
    public ulong UnusedPages { get; }
}
