namespace FCtrans.Agent.Memory;

/// <summary>
/// Content of pages that lies beside the RAM file, which has holes there, until somebody needs the page itself. A page leaves this only when the RAM
/// file has it, and none comes while others read. Safe from any thread.
/// </summary>
internal unsafe interface IPageContent
{
    bool Has(long page);

    /// <summary>Copies a page if it is <paramref name="here"/>: it may just have left. Returns an errno when it is here and can't be read, else 0.</summary>
    int TryGet(long page, byte* destination, out bool here);
}
