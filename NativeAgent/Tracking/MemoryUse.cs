using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Tracking;

/// <summary>What a page is to its guest.</summary>
internal enum MemoryUse : byte
{
    Used = 0,

    /// <summary>It takes memory nowhere: not written since the guest started, or since its memory was given back.</summary>
    NeverTouched = 1,

    /// <summary>In the guest kernel's page allocator, and it takes memory.</summary>
    Free = 2,

    /// <summary>Given back through a balloon, and it takes memory.</summary>
    Ballooned = 3,
}

/// <summary>Is told of pages that are something else than before, in their order.</summary>
internal interface IMemoryUseSink
{
    /// <param name="pages">All of them have become the same; their neighbours may have too.</param>
    /// <param name="use">What they are now.</param>
    void Changed(PageRange pages, MemoryUse use);
}
