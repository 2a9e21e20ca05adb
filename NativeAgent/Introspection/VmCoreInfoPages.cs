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

    /// <exception cref="KernelException">A RAM file can't be searched for holes.</exception>
    public static List<GuestPhysicalAddress> Find(GuestRam ram, out bool tooMany)
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
                    for (long at = (data + PageIndex.PageSize - 1) & -PageIndex.PageSize; at + PageIndex.PageSize <= end; at += PageIndex.PageSize)
                    {
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
