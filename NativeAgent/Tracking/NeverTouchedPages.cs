using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Tracking;

/// <summary>
/// The pages that a guest has not written since boot: the holes of its RAM files. Only where nobody else punches holes, so
/// never on a host where the guest is paged: there a hole may be a page that lies elsewhere.
/// </summary>
internal static class NeverTouchedPages
{
    /// <summary>Sets all of them in <paramref name="into"/>, clears none. Cost: with the number of touched pages.</summary>
    /// <returns>How many there are.</returns>
    /// <exception cref="KernelException">A RAM file can't be searched for holes.</exception>
    public static long AddTo(GuestRam ram, PageBitmap into)
    {
        long count = 0;
        foreach (var block in ram.Blocks)
        {
            long bytes = block.PageCount << PageIndex.PageShift;
            long at = 0;
            while (at < bytes)
            {
                long data = SparseFile.NextData(block.File, at);
                data = data < 0 || data > bytes ? bytes : data;
                // Rounded inwards: a page of which a part is data was touched.
                long first = (at + PageIndex.PageSize - 1) >> PageIndex.PageShift;
                long end = data >> PageIndex.PageShift;
                if (end > first)
                {
                    into.Fill(new(block.FirstPage + first, end - first), true);
                    count += end - first;
                }

                if (data == bytes)
                {
                    break;
                }

                long hole = SparseFile.NextHole(block.File, data);
                at = hole < 0 ? bytes : hole;
            }
        }

        return count;
    }
}
