namespace FCtrans.Agent.Introspection;

/// <summary>Is told of each free block that a scan finds. Called on the scan's thread, in the order of page frames within each part of the RAM.</summary>
internal interface IFreeBlockSink
{
    /// <param name="frame">Guest page frame of its first page.</param>
    /// <param name="page">Page index of its first page; all its pages follow it in the same segment.</param>
    /// <param name="order">It has 2^order pages.</param>
    void Found(ulong frame, long page, int order);
}
