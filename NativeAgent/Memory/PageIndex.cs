namespace FCtrans.Agent.Memory;

/// <summary>
/// A page of the guest's RAM: byte offset / 4096, with the VM's RAM blocks laid end to end. Not a guest-physical address
/// (which has holes) and not an address in any process.
/// </summary>
internal readonly record struct PageIndex(long Value) : IComparable<PageIndex>
{
    /// <summary>Bytes in a page. The only page size that FCtrans tracks and moves.</summary>
    public const int PageSize = 4096;

    public const int PageShift = 12;

    public int CompareTo(PageIndex other) => Value.CompareTo(other.Value);

    public static PageIndex operator +(PageIndex page, long pages) => new(page.Value + pages);

    public override string ToString() => $"page {Value}";
}

/// <summary>Consecutive pages. <paramref name="Count"/> is at least 0.</summary>
internal readonly record struct PageRange(long First, long Count)
{
    /// <summary>The page after the last.</summary>
    public long End => First + Count;

    /// <summary>Its length in bytes.</summary>
    public long Bytes => Count << PageIndex.PageShift;

    public override string ToString() => $"pages {First}..{End - 1}";
}
