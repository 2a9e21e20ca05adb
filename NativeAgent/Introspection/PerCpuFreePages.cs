using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// The free pages that a guest's kernel keeps in lists of each processor (<c>zone->per_cpu_pageset</c>, a
/// <c>struct per_cpu_pages</c>) and not in its buddy allocator: huge pages and single ones just freed, and single ones fetched
/// from the buddy allocator ahead of their use. They carry no mark of their own, so they are found as the kernel finds them:
/// by its lists. Where the lists lie is told by the kernel's types (<see cref="Btf"/>) and symbols (kallsyms, so Linux 6.0 or
/// later). List i holds blocks of order i / 3 (MIGRATE_PCPTYPES) up to PAGE_ALLOC_COSTLY_ORDER, 3; the one to three
/// lists after these hold huge pages, order 9. (Linux, mm/page_alloc.c, <c>pindex_to_order</c>.)
/// <para>
/// Why what is found with the guest stopped is dead, wherever its processors stopped. The kernel changes a list with the
/// structure's lock held. It takes a block out by two stores (next->prev, then prev->next), subtracts from <c>count</c>, unlocks,
/// and only then clears the block or gives it to anyone: while prev->next still leads to the block, no content of it is
/// worth anything. It puts a block in after all that free pages are due has been done to them (poison, init_on_free), and
/// prev->next, by which it is found here, is the last store of that. It refills a list with blocks that nobody uses, and drops
/// blocks from it into the buddy allocator, under the same lock. So every state in between would be safe to read; all the
/// same a structure counts only as a whole: each link must be matched by the link back, each block's head must be an
/// unreferenced, unmapped page, no head of a buddy block, aligned to its order and in RAM, and all blocks together must have exactly
/// <c>count</c> pages. In the middle of a change they don't, and that processor's pages of that zone stay used.
/// </para>
/// While the guest runs the answer is a hint, as <see cref="FreePageScanner"/>'s is. All memory is read by <c>pread</c>: what
/// lies on another host reads as zeros, which no list holds. The work is bounded by <see cref="MaxBlocks"/> and
/// <see cref="MaxStructures"/>, whatever the guest says. One thread at a time; a look allocates nothing.
/// </summary>
internal sealed class PerCpuFreePages
{
    /// <summary>Blocks looked at in one look: a bound on the time that it takes from a guest that stands still.</summary>
    internal const int MaxBlocks = 128 * 1024;

    /// <summary>Structures (zones × processors) looked at in one look.</summary>
    internal const int MaxStructures = 32 * 1024;

    private const int MaxNodes = 1024;
    private const int MaxZones = 8;
    private const int MaxProcessors = 8192;
    private const int MaxStructureBytes = 1024;
    private const int ListBytes = 16;
    private const int Types = 3;
    private const int LowOrderLists = Types * 4;
    private const int HugeOrder = 9;

    private readonly GuestKernel _kernel;
    private readonly GuestRam _ram;
    private readonly PerCpuLayout _layout;
    private readonly byte[] _structure;
    private readonly byte[] _page;

    /// <summary>The blocks of the structure that is looked at: page and order.</summary>
    private readonly long[] _blocks = new long[MaxBlocks];
    private int _left;
    private ulong _memMap;

    internal PerCpuFreePages(GuestKernel kernel, GuestRam ram, PerCpuLayout layout)
    {
        _kernel = kernel;
        _ram = ram;
        _layout = layout;
        _structure = new byte[layout.StructureBytes];
        _page = new byte[kernel.Pages.Size];
    }

    /// <summary>Null when the kernel does not tell enough of itself: its per-CPU pages then stay used.</summary>
    public static PerCpuFreePages? TryOpen(GuestKernel kernel, GuestRam ram)
        => PerCpuLayout.TryRead(kernel, out var layout) && IsBelievable(layout, kernel.Pages) ? new(kernel, ram, layout) : null;

    internal static bool IsBelievable(PerCpuLayout layout, StructPageFormat pages)
        => layout.StructureBytes is > 0 and <= MaxStructureBytes
            && layout.Lists is >= LowOrderLists and <= LowOrderLists + Types
            && layout.ListsOffset >= 0 && layout.ListsOffset <= layout.StructureBytes - (layout.Lists * ListBytes)
            && layout.CountOffset >= 0 && layout.CountOffset <= layout.StructureBytes - 4
            && layout.PageLinkOffset >= 0 && layout.PageLinkOffset <= pages.Size - ListBytes
            && layout.PageReferencesOffset >= 0 && layout.PageReferencesOffset <= pages.Size - 4
            && layout.Nodes is >= 1 and <= MaxNodes
            && layout.ZoneBytes is >= 64 and <= 65536 && layout.NodeZonesOffset < 1 << 24 && layout.NodeZoneCountOffset < 1 << 24
            && layout.ZonePageSetOffset <= layout.ZoneBytes - 8;

    /// <summary>Sets the pages in <paramref name="unused"/> and clears none. Returns how many were not set before.</summary>
    public long AddTo(PageBitmap unused)
    {
        _left = MaxBlocks;
        int structures = MaxStructures;
        long added = 0;
        var tables = _kernel.PageTables;
        if (!_kernel.Sections.TryGet(_kernel.InfoPage.Value >> _kernel.Sections.SectionBits, out _memMap) ||
            !tables.TryRead(_layout.ProcessorCount, out uint processors) || processors is 0 or > MaxProcessors)
        {
            return 0;
        }

        for (int node = 0; node < _layout.Nodes; node++)
        {
            ulong at = _layout.NodeTable.Value;
            if ((_layout.NodesArePointers && !tables.TryRead(new(at + (8UL * (ulong)node)), out at)) || at == 0)
            {
                continue;
            }

            if (!tables.TryRead(new(at + _layout.NodeZoneCountOffset), out uint zones) || zones > MaxZones)
            {
                continue;
            }

            for (uint zone = 0; zone < zones; zone++)
            {
                ulong zoneAt = at + _layout.NodeZonesOffset + (zone * _layout.ZoneBytes);
                if (!tables.TryRead(new(zoneAt + _layout.ZonePageSetOffset), out ulong pageSet) || pageSet == 0)
                {
                    continue;
                }

                for (uint processor = 0; processor < processors; processor++)
                {
                    if (structures-- <= 0)
                    {
                        return added;
                    }

                    if (tables.TryRead(new(_layout.ProcessorOffsets.Value + (8UL * processor)), out ulong offset))
                    {
                        added += AddStructure(pageSet + offset, unused);
                    }
                }
            }
        }

        return added;
    }

    private long AddStructure(ulong at, PageBitmap unused)
    {
        if (!_kernel.PageTables.TryRead(new GuestVirtualAddress(at), _structure))
        {
            return 0;
        }

        int count = BitConverter.ToInt32(_structure, _layout.CountOffset);
        if (count <= 0 || count > _ram.PageCount)
        {
            return 0;
        }

        int blocks = 0;
        long pages = 0;
        for (int list = 0; list < _layout.Lists; list++)
        {
            int order = list < LowOrderLists ? list / Types : HugeOrder;
            ulong head = at + (ulong)(_layout.ListsOffset + (list * ListBytes));
            ulong next = BitConverter.ToUInt64(_structure, _layout.ListsOffset + (list * ListBytes));
            ulong last = BitConverter.ToUInt64(_structure, _layout.ListsOffset + (list * ListBytes) + 8);
            ulong previous = head;
            while (next != head)
            {
                pages += 1L << order;
                // A list that leads round without its head ends here.
                if (pages > count || _left-- <= 0 || !TryBlock(next, previous, order, out long page, out ulong following))
                {
                    return 0;
                }

                _blocks[blocks++] = (page << 8) | (uint)order;
                previous = next;
                next = following;
            }

            if (last != previous)
            {
                return 0;
            }
        }

        if (pages != count)
        {
            return 0;
        }

        long added = 0;
        foreach (long block in _blocks.AsSpan(0, blocks))
        {
            added += unused.SetCounting(new(block >> 8, 1L << (int)(block & 0xff)));
        }

        return added;
    }

    /// <summary>The block whose head's link lies at <paramref name="link"/>; false when it can't be a free block that <paramref name="previous"/> leads to.</summary>
    private bool TryBlock(ulong link, ulong previous, int order, out long page, out ulong next)
    {
        page = 0;
        next = 0;
        ulong size = (ulong)_kernel.Pages.Size;
        ulong structure = link - (ulong)_layout.PageLinkOffset;
        // All x86-64 kernels of 6.0 and later map their page structures as one array (SPARSEMEM_VMEMMAP).
        ulong frame = (structure - _memMap) / size;
        ulong pages = 1UL << order;
        if (order >= _kernel.Pages.Orders || structure < _memMap || (structure - _memMap) % size != 0 || (frame & (pages - 1)) != 0 || frame >= 1UL << 40 ||
            !_kernel.Sections.TryGet(frame >> _kernel.Sections.PageCountShift, out ulong memMap) || memMap != _memMap ||
            !_ram.TryPageOf(new(frame << PageIndex.PageShift), out page) ||
            !_ram.TryPageOf(new((frame + pages - 1) << PageIndex.PageShift), out long lastPage) || lastPage != page + (long)pages - 1 ||
            !_kernel.PageTables.TryRead(new GuestVirtualAddress(structure), _page))
        {
            return false;
        }

        next = BitConverter.ToUInt64(_page, _layout.PageLinkOffset);
        // A buddy block's head has another _mapcount than -1.
        return BitConverter.ToUInt64(_page, _layout.PageLinkOffset + 8) == previous
            && BitConverter.ToInt32(_page, _layout.PageReferencesOffset) == 0
            && BitConverter.ToInt32(_page, _kernel.Pages.MapcountOffset) == -1;
    }
}
