using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// The guest kernel's <c>mem_section</c> (sparse memory model): for each section of its physical memory, where that section's
/// <c>struct page</c>s lie. Either an array of pointers to pages full of sections (SPARSEMEM_EXTREME, every x86-64
/// distribution) or one flat array. Looks sections up by number; which numbers are asked for depends on the guest's RAM and
/// never on what the guest says, so no content of it can make the work longer. One thread at a time.
/// </summary>
internal sealed class SectionTable
{
    /// <summary>The low bits of <c>section_mem_map</c>: SECTION_MARKED_PRESENT, SECTION_HAS_MEM_MAP, SECTION_IS_ONLINE. Only with all three do the structures mean anything.</summary>
    private const ulong Usable = 7;

    /// <summary>More flags follow in the low bits (six as of Linux 6.18). The address is that of a page.</summary>
    private const ulong AddressMask = ~0xfffUL;

    private readonly GuestPageTables _tables;
    private readonly ulong _array;
    private readonly ulong _length;
    private readonly ulong _sections;
    private readonly int _entrySize;
    private readonly int _mapOffset;
    private readonly int _perRootShift;
    private readonly byte[] _root = new byte[PageIndex.PageSize];
    private ulong _rootNumber = ulong.MaxValue;
    private bool _rootReadable;

    private SectionTable(GuestPageTables tables, ulong array, ulong length, ulong sections, int sectionBits, int entrySize, int mapOffset, int perRootShift)
    {
        _tables = tables;
        _array = array;
        _length = length;
        _sections = sections;
        SectionBits = sectionBits;
        _entrySize = entrySize;
        _mapOffset = mapOffset;
        _perRootShift = perRootShift;
    }

    /// <summary>A section has 2^this bytes.</summary>
    public int SectionBits { get; }

    /// <summary>Pages in a section, as a power of two.</summary>
    public int PageCountShift => SectionBits - PageIndex.PageShift;

    private bool Extreme => _perRootShift > 0;

    public static bool TryCreate(VmCoreInfo info, GuestPageTables tables, out SectionTable table, out string reason)
    {
        table = null!;
        if (!info.TrySymbol("mem_section", out ulong array) || array == 0 || array % 8 != 0)
        {
            reason = "SYMBOL(mem_section) is missing: the kernel does not use the sparse memory model";
            return false;
        }

        // Told since Linux 5.13 and 5.8. Earlier ones have what x86-64 has to this day, and LENGTH(mem_section) has to fit it.
        if (!info.TryNumber("SECTION_SIZE_BITS", out ulong sectionBits))
        {
            sectionBits = 27;
        }

        if (!info.TryNumber("MAX_PHYSMEM_BITS", out ulong physicalBits))
        {
            physicalBits = tables.Levels == 5 ? 52UL : 46;
        }

        if (sectionBits is < 21 or > 36 || physicalBits <= sectionBits || physicalBits > 52)
        {
            reason = "NUMBER(SECTION_SIZE_BITS) or NUMBER(MAX_PHYSMEM_BITS) is senseless";
            return false;
        }

        if (!info.TrySize("mem_section", out ulong size) || size is < 8 or > 256 || size % 8 != 0 ||
            !info.TryOffset("mem_section.section_mem_map", out ulong offset) || offset % 8 != 0 || offset > size - 8)
        {
            reason = "SIZE(mem_section) or OFFSET(mem_section.section_mem_map) is missing or senseless";
            return false;
        }

        ulong sections = 1UL << (int)(physicalBits - sectionBits);
        if (!info.TryLength("mem_section", out ulong length) || length == 0 || length > sections)
        {
            reason = "LENGTH(mem_section) is missing or senseless";
            return false;
        }

        int perRootShift = 0;
        if (length < sections)
        {
            // The kernel makes both powers of two (SECTIONS_PER_ROOT is a mask in its code).
            ulong perRoot = (ulong)PageIndex.PageSize / size;
            if (!ulong.IsPow2(perRoot) || ((sections + perRoot - 1) / perRoot) != length)
            {
                reason = "LENGTH(mem_section) does not fit SIZE(mem_section)";
                return false;
            }

            perRootShift = System.Numerics.BitOperations.TrailingZeroCount(perRoot);
        }

        table = new(tables, array, length, sections, (int)sectionBits, (int)size, (int)offset, perRootShift);
        reason = "";
        return true;
    }

    /// <summary>Drops what was read.</summary>
    public void Forget() => _rootNumber = ulong.MaxValue;

    /// <summary>
    /// Where the <c>struct page</c> of page frame 0 would lie if this section's array went so far down: that of frame N is at
    /// <paramref name="memMap"/> + N × SIZE(page). False when the section is absent, offline or can't be read.
    /// </summary>
    public bool TryGet(ulong section, out ulong memMap)
    {
        memMap = 0;
        if (section >= _sections)
        {
            return false;
        }

        ulong root = Extreme ? section >> _perRootShift : section * (ulong)_entrySize / PageIndex.PageSize;
        if (root != _rootNumber)
        {
            _rootNumber = root;
            _rootReadable = Extreme ? ReadRoot(root) : ReadFlat(root);
        }

        if (!_rootReadable)
        {
            return false;
        }

        ulong at = Extreme
            ? (section & ((1UL << _perRootShift) - 1)) * (ulong)_entrySize
            : (section * (ulong)_entrySize) % PageIndex.PageSize;
        if (at + (ulong)_mapOffset + 8 > (ulong)_root.Length)
        {
            // A flat entry that straddles a page: only where SIZE(mem_section) is no power of two, which no kernel has flat.
            return false;
        }

        ulong encoded = BitConverter.ToUInt64(_root, (int)at + _mapOffset);
        memMap = encoded & AddressMask;
        return (encoded & Usable) == Usable && memMap != 0;
    }

    private bool ReadRoot(ulong root)
        => root < _length
            && _tables.TryRead(new GuestVirtualAddress(_array + (root * 8)), out ulong pointer)
            && pointer != 0
            && pointer % 8 == 0
            && _tables.TryRead(new GuestVirtualAddress(pointer), _root.AsSpan(0, _entrySize << _perRootShift));

    private bool ReadFlat(ulong root)
    {
        ulong bytes = Math.Min(PageIndex.PageSize, (_length * (ulong)_entrySize) - (root * PageIndex.PageSize));
        return _tables.TryRead(new GuestVirtualAddress(_array + (root * PageIndex.PageSize)), _root.AsSpan(0, (int)bytes));
    }
}
