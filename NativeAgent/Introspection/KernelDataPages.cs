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
    /// <summary>Frames whose structures are read at once: those of a subsection (2 MiB), which the kernel has all or not at all.</summary>
    private const int Chunk = 512;

    /// <summary>Adds them to <paramref name="into"/>; nothing where the kernel does not say how to tell.</summary>
    /// <param name="kernel">Found a moment ago.</param>
    /// <param name="ram">The guest's RAM.</param>
    /// <param name="unused">Not looked at.</param>
    /// <param name="into">Gets the pages.</param>
    public static void AddTo(GuestKernel kernel, GuestRam ram, PageBitmap unused, PageBitmap into)
        => AddTo(kernel, ram, new(0, ram.PageCount), unused, into, before: null);

    /// <summary>As the other, of some pages only, on a host where not all of the guest's memory is.</summary>
    /// <param name="kernel">Found a moment ago; its reader is told what is away.</param>
    /// <param name="ram">The guest's RAM.</param>
    /// <param name="part">The pages.</param>
    /// <param name="unused">Not looked at.</param>
    /// <param name="into">Gets the pages.</param>
    /// <param name="before">
    /// What these were before. It stays so where it can't be seen now: the page's structure is on another host, or that of the page
    /// that leads a compound one. Null: all can be seen.
    /// </param>
    public static void AddTo(GuestKernel kernel, GuestRam ram, PageRange part, PageBitmap unused, PageBitmap into, PageBitmap? before)
    {
        if (!Flags.TryRead(kernel, out var flags))
        {
            return;
        }

        kernel.Forget();
        int size = kernel.Pages.Size;
        int shift = kernel.Sections.PageCountShift;
        byte[] structures = new byte[Chunk * size];
        foreach (ref readonly var segment in ram.Segments)
        {
            long segmentPage = (long)(segment.RamOffset >> PageIndex.PageShift);
            long firstPage = Math.Max(segmentPage, part.First);
            long endPage = Math.Min(segmentPage + (long)(segment.Bytes >> PageIndex.PageShift), part.End);
            ulong firstFrame = (segment.Start >> PageIndex.PageShift) + (ulong)(firstPage - segmentPage);
            ulong end = firstFrame + (ulong)Math.Max(0, endPage - firstPage);
            // What leads a compound page across the part's beginning has not been seen.
            bool? headIsData = firstPage == segmentPage ? false : null;
            for (ulong frame = firstFrame; frame < end;)
            {
                ulong next = Math.Min(Math.Min(end, ((frame >> shift) + 1) << shift), (frame + Chunk) & ~(ulong)(Chunk - 1));
                var pages = new PageRange(firstPage + (long)(frame - firstFrame), (long)(next - frame));
                var read = structures.AsSpan(0, (int)pages.Count * size);
                kernel.Memory.MetAway = false;
                bool isRead = !unused.Covers(pages) && kernel.Sections.TryGet(frame >> shift, out ulong memMap)
                    && kernel.PageTables.TryRead(new GuestVirtualAddress(memMap + (frame * (ulong)size)), read);
                if (kernel.Memory.MetAway)
                {
                    // Also of the tables on the way there nothing is kept that is not so.
                    kernel.Forget();
                    Keep(pages, unused, before, into);
                    headIsData = null;
                }
                else
                {
                    headIsData = isRead ? Add(pages, read, size, flags, headIsData, unused, before, into) : false;
                }

                frame = next;
            }
        }
    }

    /// <param name="headIsData">Whether the page that leads the first of these, if that is a part of a larger one, is the kernel's data; null: not known.</param>
    /// <returns>The same for the page after these.</returns>
    private static bool? Add(
        PageRange pages, ReadOnlySpan<byte> structures, int size, in Flags flags, bool? headIsData, PageBitmap unused, PageBitmap? before, PageBitmap into)
    {
        for (int i = 0; i < pages.Count; i++)
        {
            long page = pages.First + i;
            if (unused[page])
            {
                headIsData = false;
                continue;
            }

            // Bit 0 marks a tail of a compound page; only its head, which lies before it, tells what it is.
            var structure = structures.Slice(i * size, size);
            if ((BinaryPrimitives.ReadUInt64LittleEndian(structure[flags.HeadAt..]) & 1) == 0)
            {
                headIsData = (BinaryPrimitives.ReadUInt64LittleEndian(structure[flags.At..]) & flags.NotData) == 0;
            }

            if (headIsData ?? before?[page] ?? false)
            {
                into[page] = true;
            }
        }

        return headIsData;
    }

    private static void Keep(PageRange pages, PageBitmap unused, PageBitmap? before, PageBitmap into)
    {
        for (long page = pages.First; before is not null && page < pages.End; page++)
        {
            if (before[page] && !unused[page])
            {
                into[page] = true;
            }
        }
    }

    /// <summary>Where the flags lie in a <c>struct page</c>, and those of which data has none.</summary>
    private readonly record struct Flags(int At, int HeadAt, ulong NotData)
    {
        public static bool TryRead(GuestKernel kernel, out Flags flags)
        {
            var info = kernel.Info;
            int last = kernel.Pages.Size - sizeof(ulong);
            if (!info.TryOffset("page.flags", out ulong flagsAt) || flagsAt > (ulong)last
                || !info.TryOffset("page.compound_head", out ulong headAt) || headAt > (ulong)last
                || !info.TryNumber("PG_lru", out ulong lru) || lru > 31
                || !info.TryNumber("PG_private", out ulong @private) || @private is < 1 or > 31)
            {
                flags = default;
                return false;
            }

            // PG_reserved is not told, but precedes PG_private in include/linux/page-flags.h of every kernel from 4.18 to 6.18.
            flags = new((int)flagsAt, (int)headAt, (1UL << (int)lru) | (1UL << (int)(@private - 1)));
            return true;
        }
    }
}
