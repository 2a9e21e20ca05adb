namespace FCtrans.Agent.Transport;

/// <summary>What a frame is; docs/protocol.md has the table.</summary>
internal enum FrameType : byte
{
    None = 0,
    Hello = 1,
    Pages = 2,
    ZeroPages = 3,
    Discard = 4,
    Located = 5,
    Barrier = 6,
    BarrierDone = 7,
    Get = 8,
    GetDone = 9,
    List = 10,
    Held = 11,
    ListDone = 12,
    DeviceState = 13,
    Control = 14,
    Error = 15,
    CompressedPages = 16,
    Pinned = 17,
    RowPages = 18,
    Take = 19,
    TakeDone = 20,
}

/// <summary>What a connection is for; decides which frames it may carry.</summary>
internal enum ConnectionPurpose : byte
{
    None = 0,

    /// <summary>Page content and what becomes of pages, in order; many bytes.</summary>
    Bulk = 1,

    /// <summary>Requests of faults and their answers, nothing else: a fault never waits behind bulk data.</summary>
    Demand = 2,

    /// <summary>The source's word to the main host.</summary>
    Control = 3,

    /// <summary>The main host fetches what a switch-over left at the source, beside what faults ask for.</summary>
    Drain = 4,

    /// <summary>The main host has a sub-host take pages from the source, so that they need not come to the main host first.</summary>
    Take = 5,
}
