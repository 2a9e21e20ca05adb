using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Paging;

/// <summary>Takes the answers to the pages asked for, on the thread that reads them; must not block on the network.</summary>
internal unsafe interface IPageArrivals
{
    /// <param name="content">The page, 4096 bytes; good until the call returns.</param>
    /// <param name="forWrite">As given when it was asked for.</param>
    void Arrived(int sub, long page, bool forWrite, byte* content);

    /// <summary>Pages that were asked for before anybody wanted them.</summary>
    void ArrivedEarly(int sub, PageRange range, bool forWrite, byte* content);

    /// <summary>The store answered that it does not have the page.</summary>
    void Missing(int sub, long page);

    /// <summary>Whether another store that is there has the page too.</summary>
    bool IsElsewhere(int sub, long page);

    /// <summary>The store is away and will not be asked for these any more: another is.</summary>
    void Unanswered(int sub, PageRange range);
}
