using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Paging;

/// <summary>
/// A sub-host's store as the main host sees it: a channel for what faults ask for, one for what they may ask for next, one for all else. Starts to connect when
/// <see cref="Start"/> is called and never gives up; the store may be away at any time and comes back with what it had.
/// </summary>
internal sealed class RemoteStore : IDisposable, IPageArrivals
{
    private volatile IPageArrivals? _arrivals;
    private readonly StoreProbe _probe;
    private volatile bool _retired;

    public RemoteStore(RemoteStoreOptions options)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(options.Index);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(options.Index, PageEntry.MaxSubs);
        Options = options;
        Demand = new(options, this);
        Prefetch = new(options, this);
        Evacuation = new(options, this);
        Bulk = new(options);
        _probe = new(options, () => Demand.IsSilent || Prefetch.IsSilent || Evacuation.IsSilent, TryMove);
    }

    public RemoteStoreOptions Options { get; }

    public int Index => Options.Index;

    /// <summary>Asks for pages; for the fault thread.</summary>
    public DemandChannel Demand { get; }

    /// <summary>Asks for pages ahead of their faults; for the fault thread. Paging does without it while it is away.</summary>
    public PrefetchChannel Prefetch { get; }

    /// <summary>Fetches what the store still has when it is to leave; for the evictor. Not started before that.</summary>
    public PrefetchChannel Evacuation { get; }

    /// <summary>Changes the store; for the evictor.</summary>
    public BulkChannel Bulk { get; }

    public bool IsConnected => Demand.IsConnected && Bulk.IsConnected;

    /// <summary>Whether pages may be put there.</summary>
    public bool TakesPages => !Options.IsSource;

    /// <summary>Why it is away; null when it is not, or nobody needs it any more.</summary>
    public string? Problem => IsConnected || _retired ? null : (Demand.IsConnected ? Bulk.Error : Demand.Error) ?? "Not connected yet.";

    public long BytesSent => Demand.BytesSent + Prefetch.BytesSent + Evacuation.BytesSent + Bulk.BytesSent;

    public long BytesReceived => Demand.BytesReceived + Prefetch.BytesReceived + Evacuation.BytesReceived + Bulk.BytesReceived;

    /// <summary>The most pages that it takes, as it said; <see cref="long.MaxValue"/> without a limit.</summary>
    public long LimitPages => Bulk.LimitPages is var limit and > 0 ? limit : long.MaxValue;

    public void Start()
    {
        Demand.Start();
        Prefetch.Start();
        Bulk.Start();
        _probe.Start();
    }

    /// <summary>Says who takes the answers; before the first page is asked for.</summary>
    public void Attach(IPageArrivals arrivals) => _arrivals = arrivals;

    /// <summary>While it is away: what it was asked for and another store has is asked for there instead.</summary>
    public void Reroute()
    {
        Demand.TakeBack();
        Prefetch.TakeBack();
        Evacuation.TakeBack();
    }

    /// <summary>It owes answers: <see cref="LookForAnswers"/> is to be called in a while.</summary>
    public bool IsOwed => Demand.IsOwed || Prefetch.IsOwed || Evacuation.IsOwed;

    /// <summary>
    /// While it is silent, it is tried whether another connection has an answer sooner: see <see cref="StoreProbe"/>.
    /// A worker that hangs keeps its connections for ever. Ended here after <see cref="RemoteStoreOptions.AnswerTimeout"/>, they are as those of one
    /// that is away: others are asked, it is said, and what only it has is asked for anew when it is back. For the fault thread; as
    /// <see cref="StoreChannel.Look"/>.
    /// </summary>
    public void LookForAnswers(long milliseconds)
    {
        // Each looks, whatever the others have seen.
        Bulk.Look(milliseconds);
        long silence = Math.Max(Demand.Look(milliseconds), Math.Max(Prefetch.Look(milliseconds), Evacuation.Look(milliseconds)));
        if (silence >= (long)Options.ProbeAfter.TotalMilliseconds)
        {
            _probe.Begin();
        }

        if (silence >= (long)Options.AnswerTimeout.TotalMilliseconds)
        {
            string reason = $"Its worker has not answered for {Options.AnswerTimeout.TotalSeconds:0.#} s.";
            Demand.Abort(reason);
            Prefetch.Abort(reason);
            Evacuation.Abort(reason);
        }
    }

    /// <summary>It has nothing any more and never will: not asked again.</summary>
    public void Retire()
    {
        _retired = true;
        Dispose();
    }

    public void Dispose()
    {
        _probe.Dispose();
        Demand.Dispose();
        Prefetch.Dispose();
        Evacuation.Dispose();
        Bulk.Dispose();
    }

    /// <summary>The store is there, by <paramref name="connection"/>: whatever is silent has lost its way.</summary>
    private bool TryMove(FrameConnection connection)
    {
        string reason = $"Its worker could be reached again by another connection, while this one had been silent for {Options.ProbeAfter.TotalSeconds:0.#} s.";
        bool moved = Demand.TryMove(connection, reason);
        // These connect by themselves, which takes no time now.
        Prefetch.AbortIfSilent(reason);
        Evacuation.AbortIfSilent(reason);
        Bulk.AbortIfSilent(reason);
        return moved;
    }

    unsafe void IPageArrivals.Arrived(int sub, long page, bool forWrite, byte* content) =>
        _arrivals?.Arrived(sub, page, forWrite, content);

    unsafe void IPageArrivals.ArrivedEarly(int sub, PageRange range, bool forWrite, byte* content) =>
        _arrivals?.ArrivedEarly(sub, range, forWrite, content);

    void IPageArrivals.Missing(int sub, long page) => _arrivals?.Missing(sub, page);

    bool IPageArrivals.IsElsewhere(int sub, long page) => _arrivals?.IsElsewhere(sub, page) ?? false;

    void IPageArrivals.Unanswered(int sub, PageRange range) => _arrivals?.Unanswered(sub, range);
}
