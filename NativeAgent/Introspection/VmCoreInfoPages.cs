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

    /// <summary>
    /// Data is looked at through a window of this length: a look at a page costs a load instead of a system call, and the page
    /// table entries of this process stay few however large the guest is.
    /// </summary>
    private const long WindowBytes = 64 << 20;

    /// <param name="ram">The guest's RAM.</param>
    /// <param name="mayMap">False where the guest is paged: then every page is read by a call of its own.</param>
    /// <param name="tooMany">There were more than <see cref="MaxCandidates"/>.</param>
    /// <exception cref="KernelException">A RAM file can't be searched for holes, or not be mapped.</exception>
    public static List<GuestPhysicalAddress> Find(GuestRam ram, bool mayMap, out bool tooMany)
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
                using var window = new Window(block);
                for (long data = SparseFile.NextData(block.File, from); data >= 0 && data < until;)
                {
                    long hole = SparseFile.NextHole(block.File, data);
                    long end = hole < 0 ? until : Math.Min(hole, until);
                    for (long at = (data + PageIndex.PageSize - 1) & -PageIndex.PageSize; at + PageIndex.PageSize <= end; at += PageIndex.PageSize)
                    {
                        // Sixteen bytes: the length of the buffer, or the beginning of a page in the window.
                        byte* text = mayMap ? window.At(at) : SparseFile.Read(block.File, start, 16, at) == 16 ? start : null;
                        if (text == null || *(ulong*)text != magic || !new ReadOnlySpan<byte>(text, 16).StartsWith(VmCoreInfo.Magic))
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

    /// <summary>The part of a RAM file that is mapped at the moment, aligned to its length.</summary>
    private sealed class Window(RamBlock block) : IDisposable
    {
        private MappedMemory? _map;
        private long _from = -1;

        /// <summary>The page at an offset of the file; good until the next call. Only for pages with data: a hole would become one.</summary>
        public byte* At(long offset)
        {
            long from = offset & -WindowBytes;
            if (from != _from)
            {
                _map?.Dispose();
                _map = null;
                long length = Math.Min(WindowBytes, (block.PageCount << PageIndex.PageShift) - from);
                _map = MappedMemory.File(block.File, from, (nuint)length, write: false);
                _from = from;
            }

            return _map!.Address + (offset - from);
        }

        public void Dispose() => _map?.Dispose();
    }
}
