namespace FCtrans.Agent.Introspection;

/// <summary>What one scan saw, in pages. The first three are disjoint: a page never touched is counted as that only.</summary>
internal readonly record struct ScanResult
{
    /// <summary>Holes of the RAM files; 0 where holes mean something else.</summary>
    public long NeverTouchedPages { get; init; }

    /// <summary>In the guest's buddy allocator, and touched before.</summary>
    public long FreePages { get; init; }

    /// <summary>Taken by a balloon (PageOffline), and touched before.</summary>
    public long BallooningPages { get; init; }

    /// <summary>All pages in the buddy allocator, touched or not: what the guest calls MemFree, but for its per-CPU lists.</summary>
    public long BuddyPages { get; init; }

    /// <summary>Heads of free blocks that made no sense (order, alignment, outside RAM); their pages count as used.</summary>
    public long RefusedBlocks { get; init; }

    /// <summary>Page frames without a readable <c>struct page</c>; they count as used unless never touched.</summary>
    public long UnknownPages { get; init; }

    /// <summary>Time for finding the holes.</summary>
    public double NeverTouchedMilliseconds { get; init; }

    /// <summary>Time for looking at the <c>struct page</c>s.</summary>
    public double BuddyMilliseconds { get; init; }

    public double Milliseconds => NeverTouchedMilliseconds + BuddyMilliseconds;
}
