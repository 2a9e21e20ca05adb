using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// Finds the pages that begin like a VMCOREINFO, among those that were ever touched. Old copies, a crash kernel's copy and
/// decoys are found too: <see cref="GuestKernel"/> tells them apart.
/// </summary>
internal static unsafe class VmCoreInfoPages
{
    /// <summary>More than this many is no accident, and nothing is believed then.</summary>
    public const int MaxCandidates = 64;

    /// <summary>Pages mapped at a time: enough to make a fault for each needless, little enough to be no burden.</summary>
    private const long WindowBytes = 64 << 20;

    /// <param name="ram">The guest's RAM, with its segments.</param>
    /// <param name="tooMany">More than <see cref="MaxCandidates"/>; the rest was not looked for.</param>
    /// <param name="mayMap">Whether pages with data may be read through a mapping (see <see cref="FreePageScanner"/>): several times faster.</param>
    /// <exception cref="KernelException">A RAM file can't be searched for holes.</exception>
    public static List<GuestPhysicalAddress> Find(GuestRam ram, out bool tooMany, bool mayMap = false)
    {
        var found = new List<GuestPhysicalAddress>();
        tooMany = false;
        ulong magic = BitConverter.ToUInt64(VmCoreInfo.Magic);
        byte* start = stackalloc byte[16];
        foreach (ref readonly var segment in ram.Segments)
        {
            ulong done = 0;
            while (done < segment.Bytes)
            {
                var block = ram.BlockOf((long)((segment.RamOffset + done) >> PageIndex.PageShift));
                long blockStart = block.FirstPage << PageIndex.PageShift;
                long from = (long)(segment.RamOffset + done) - blockStart;
                long until = Math.Min(from + (long)(segment.Bytes - done), block.PageCount << PageIndex.PageShift);
                for (long data = SparseFile.NextData(block.File, from); data >= 0 && data < until;)
                {
                    long hole = SparseFile.NextHole(block.File, data);
                    long end = hole < 0 ? until : Math.Min(hole, until);
                    // A small piece is read faster than mapped.
                    bool map = mayMap && end - data >= 16 * PageIndex.PageSize;
                    end = map ? Math.Min(end, data + WindowBytes) : end;
                    using var window = map ? MappedMemory.File(block.File, data & -PageIndex.PageSize, (nuint)(end - (data & -PageIndex.PageSize)), write: false) : null;
                    // All of it has data; a page that a balloon takes meanwhile is made anew at worst.
                    _ = window?.Advise(0, window.Bytes, MemoryAdvice.PopulateRead);
                    for (long at = (data + PageIndex.PageSize - 1) & -PageIndex.PageSize; at + PageIndex.PageSize <= end; at += PageIndex.PageSize)
                    {
                        if (window is not null && *(ulong*)(window.Address + (at - (data & -PageIndex.PageSize))) != magic)
                        {
                            continue;
                        }

                        // Sixteen bytes, the length of the buffer.
                        if (SparseFile.Read(block.File, start, 16, at) != 16 || *(ulong*)start != magic ||
                            !new ReadOnlySpan<byte>(start, 16).StartsWith(VmCoreInfo.Magic))
                        {
                            continue;
                        }

                        if (found.Count == MaxCandidates)
                        {
                            tooMany = true;
                            return found;
                        }

                        found.Add(new(segment.Start + done + (ulong)(at - from)));
                    }

                    if (end >= until)
                    {
                        break;
                    }

                    data = SparseFile.NextData(block.File, end);
                }

                done += (ulong)(until - from);
            }
        }

        return found;
    }
}
