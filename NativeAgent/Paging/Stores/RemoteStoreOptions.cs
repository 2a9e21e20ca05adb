using System.Net;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;

namespace FCtrans.Agent.Paging;

/// <summary>Where a sub-host's store is, and how to prove who we are.</summary>
internal sealed record RemoteStoreOptions
{
    /// <summary>0 to 30: what the page table writes beside a page.</summary>
    public required int Index { get; init; }

    /// <summary>The name that the user knows it by; for messages.</summary>
    public required string Host { get; init; }

    public required IPAddress Address { get; init; }

    public required int Port { get; init; }

    /// <summary>Of the store's certificate.</summary>
    public required string Thumbprint { get; init; }

    /// <summary>Ours; null without TLS.</summary>
    public required WorkerCertificate? Certificate { get; init; }

    public required string SplitId { get; init; }

    /// <summary>It is the VM's source, which only gives what was left there at the switch-over, and takes nothing.</summary>
    public bool IsSource { get; init; }

    /// <summary>Pages of the VM.</summary>
    public required long Pages { get; init; }

    /// <summary>How long the store may say nothing while it owes pages, before it is tried whether another connection reaches it; see <see cref="StoreProbe"/>.</summary>
    public TimeSpan ProbeAfter { get; init; } = TimeSpan.FromMilliseconds(400);

    /// <summary>From the end of such a try to the next: what a slow store has to bear at most.</summary>
    public TimeSpan ProbePause { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>How long the store may take to acknowledge what was sent, or say nothing while it owes pages; then it counts as away and is connected to anew.</summary>
    public TimeSpan AnswerTimeout { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>Connects to it as the main host's worker.</summary>
    /// <param name="purpose">What the connection is for.</param>
    /// <param name="patience">How long it is tried.</param>
    /// <param name="store">What the store says of itself.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <inheritdoc cref="PeerConnector.Connect" path="/exception"/>
    public FrameConnection Connect(ConnectionPurpose purpose, TimeSpan patience, out PeerHello store, CancellationToken cancellation) =>
        PeerConnector.Connect(
            Address, Port, Thumbprint, Certificate, new(SplitId, WorkerRole.Main, purpose, Pages), patience, Certificate is not null, out store, cancellation);
}
