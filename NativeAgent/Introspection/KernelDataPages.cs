using System.Buffers.Binary;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// The pages that a guest's kernel has taken for its own data: slabs, stacks, page tables, per-CPU areas. They are those in use
/// that are on none of its LRU lists (mm/vmscan.c reclaims from no other place, so what user space and the page cache own is on
/// one), less those that the boot reserved. A hint for placement and eviction, never for what is unused: a page on its way to a
/// list counts too.
/// </summary>
internal static class KernelDataPages
{
    /// <summary>Adds them to <paramref name="into"/>; nothing where the kernel does not say how to tell.</summary>
    /// <param name="kernel">Found a moment ago.</param>
    /// <param name="ram">The guest's RAM.</param>
    /// <param name="unused">Not looked at.</param>
    /// <param name="into">Gets the pages.</param>
    public static void AddTo(GuestKernel kernel, GuestRam ram, PageBitmap unused, PageBitmap into)
    {
        var info = kernel.Info;
        int last = kernel.Pages.Size - sizeof(ulong);
        if (!info.TryOffset("page.flags", out ulong flagsAt) || flagsAt > (ulong)last
            || !info.TryOffset("page.compound_head", out ulong headAt) || headAt > (ulong)last
            || !info.TryNumber("PG_lru", out ulong lru) || lru > 31
            || !info.TryNumber("PG_private", out ulong @private) || @private is < 1 or > 31)
        {
            return;
        }

        // PG_reserved is not told, but precedes PG_private in include/linux/page-flags.h of every kernel from 4.18 to 6.18.
        ulong notData = (1UL << (int)lru) | (1UL << (int)(@private - 1));
        Span<byte> structPage = stackalloc byte[512];
        bool headIsData = false;
        foreach (ref readonly var segment in ram.Segments)
        {
            long firstPage = (long)(segment.RamOffset >> PageIndex.PageShift);
            long pages = (long)(segment.Bytes >> PageIndex.PageShift);
            ulong firstFrame = segment.Start >> PageIndex.PageShift;
            for (long i = 0; i < pages; i++)
            {
                if (unused[firstPage + i] || !kernel.TryReadStructPage(firstFrame + (ulong)i, structPage))
                {
                    headIsData = false;
                    continue;
                }

                // Bit 0 marks a tail of a compound page; only its head, which lies before it, tells what it is.
                bool tail = (BinaryPrimitives.ReadUInt64LittleEndian(structPage[(int)headAt..]) & 1) != 0;
                if (!tail)
                {
                    headIsData = (BinaryPrimitives.ReadUInt64LittleEndian(structPage[(int)flagsAt..]) & notData) == 0;
                }

                if (headIsData)
                {
                    into[firstPage + i] = true;
                }
            }
        }
    }
}
