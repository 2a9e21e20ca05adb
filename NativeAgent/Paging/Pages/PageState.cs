namespace FCtrans.Agent.Paging;

/// <summary>What a page of a split VM is. <see cref="PageTable"/> has the transitions.</summary>
internal enum PageState : byte
{
    /// <summary>Nobody has content for it, nor needs any: the guest gets zeros at its first touch.</summary>
    Unused = 0,

    /// <summary>Its content is in the RAM file here. A sub-host named beside it may have an old copy.</summary>
    Resident = 1,

    /// <summary>In the RAM file, write-protected, and the sub-hosts named beside it have the same content.</summary>
    ResidentClean = 2,

    /// <summary>Asked for at its sub-host; the thread that reads the answers owns what comes of it.</summary>
    Fetching = 3,

    /// <summary>In the RAM file; the evictor copies it to the sub-host named beside it. A write takes it back.</summary>
    Evicting = 4,

    /// <summary>One thread changes it and nobody else may: microseconds. Only reclaim waits on the network meanwhile, for pages that the guest does not use.</summary>
    Busy = 5,

    /// <summary>Only the sub-hosts named beside it, one or two, have the content.</summary>
    Remote = 6,

    /// <summary>Its only copy is gone. Never zeros: the guest gets a memory error.</summary>
    Lost = 7,

    /// <summary>Its content is here, packed and beside the RAM file (<see cref="Storage.PackedPages"/>), since the VM came; no sub-host has a copy.</summary>
    Packed = 8,
}

/// <summary>
/// One byte of the page table: the state in the lower 3 bits; above, 0 for no sub-host or its index + 1, or the number of a pair + 1
/// (<see cref="Places"/>). A packed page has a byte that an unused one, which has no sub-host, never has.
/// </summary>
internal readonly record struct PageEntry(byte Value)
{
    /// <summary>The greatest number of sub-hosts.</summary>
    public const int MaxSubs = 31;

    private const byte Packed = (int)PageState.Unused | MaxSubs << 3;

    /// <param name="sub">0 to 30, or -1 for none.</param>
    public PageEntry(PageState state, int sub = -1)
        : this(state == PageState.Packed ? Packed : (byte)((int)state | (sub + 1) << 3))
    {
    }

    public PageState State => Value == Packed ? PageState.Packed : (PageState)(Value & 7);

    /// <summary>-1 for none. Which stores that is, <see cref="Places"/> says.</summary>
    public int Sub => Value == Packed ? -1 : (Value >> 3) - 1;

    public PageEntry With(PageState state) => new(state, Sub);

    public override string ToString() => Sub < 0 ? $"{State}" : $"{State} (sub-host {Sub})";
}
