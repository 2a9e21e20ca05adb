using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Reclaim;

/// <summary>
/// The memory of one VM as reclaim needs it: pages that can be frozen, and dropped or let go. Used by one thread; no method allocates.
/// Ranges lie in one RAM block.
/// </summary>
internal interface IReclaimTarget
{
    /// <summary>At most this many pages are held at once, but for one block that is larger.</summary>
    long BatchPages { get; }

    /// <summary>At most this many pages are dropped by one <see cref="Drop"/>.</summary>
    long PiecePages { get; }

    /// <summary>Whether a batch may stay held until the next one is frozen, so that it is dropped while the next one's question is under way.</summary>
    bool DropsWhileAsking => false;

    /// <summary>Pages that went and that only a sub-host had, in all.</summary>
    long RemoteDropped => 0;

    /// <summary>How many pages of a free block take memory, here or on a sub-host.</summary>
    long Count(PageRange block);

    /// <summary>Whether another host has some of a free block: the guest would have to fetch dead content from there.</summary>
    bool IsElsewhere(PageRange block);

    /// <summary>Nobody writes this page until <see cref="Thaw"/>; whoever tries waits. False: not now.</summary>
    bool Freeze(long structPages);

    void Thaw(long structPages);

    /// <summary>As <see cref="Freeze"/>, for the pages that are to go: until <see cref="Drop"/> or <see cref="LetGo"/>. False: none was frozen.</summary>
    bool Hold(PageRange pages);

    /// <summary>The content of held pages goes, on every host, and who waits for them goes on. Returns how many went.</summary>
    long Drop(PageRange pages);

    /// <summary>Held pages stay as they are, and who waits for them goes on.</summary>
    void LetGo(PageRange pages);
}
