namespace FCtrans.Agent.Memory;

/// <summary>
/// Content of pages that lies beside the RAM file, which has holes there, until somebody needs the page itself. A page leaves this only when the RAM
/// file has it, and none comes while others read. Safe from any thread.
/// </summary>
internal unsafe interface IPageContent
{
    bool Has(long page);

    /// <summary>Copies a page; false when it is not here, or just has left.</summary>
    /// <exception cref="IOException">It is here and can't be read.</exception>
    bool TryGet(long page, byte* destination);
}
