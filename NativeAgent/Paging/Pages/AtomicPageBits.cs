using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Paging;

/// <summary>One bit a page that several threads set and clear at once; each change is a full fence.</summary>
internal sealed class AtomicPageBits(long pageCount) : IDisposable
{
    private readonly PageBitmap _bits = new(pageCount);

    /// <summary>Sets the bit; whether it was clear before.</summary>
    public bool TrySet(long page)
    {
        ulong mask = 1UL << (int)(page & 63);
        return (Interlocked.Or(ref _bits.Words(page >> 6, 1)[0], mask) & mask) == 0;
    }

    /// <summary>Clears the bit; whether it was set before.</summary>
    public bool TryClear(long page)
    {
        ulong mask = 1UL << (int)(page & 63);
        ref ulong word = ref _bits.Words(page >> 6, 1)[0];
        // The fence before the look: what the caller did before must be seen by whoever sets the bit after.
        Interlocked.MemoryBarrier();
        return (Volatile.Read(ref word) & mask) != 0 && (Interlocked.And(ref word, ~mask) & mask) != 0;
    }

    public void Dispose() => _bits.Dispose();
}
