using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Introspection;

/// <summary>A leaf of the page tables: <paramref name="Bytes"/> of virtual memory from <paramref name="Virtual"/> on lie at <paramref name="Physical"/>.</summary>
/// <param name="Writable">As the leaf says; the tables above it may forbid it all the same.</param>
internal readonly record struct GuestMapping(ulong Virtual, ulong Physical, ulong Bytes, bool Writable = false)
{
    public bool Covers(ulong address) => address - Virtual < Bytes;
}

/// <summary>
/// The x86-64 page tables of a guest's kernel, 4 or 5 levels, walked from outside. Keeps the last table of each level in a
/// buffer, so that walking along an array costs one read per table instead of four or five per page;
/// <see cref="Forget"/> drops them, and is due before each new look at a guest that has run since. One thread at a time.
/// No content of the tables can make a walk longer than its levels or read outside the guest's RAM.
/// </summary>
internal sealed class GuestPageTables
{
    private const ulong AddressMask = 0x000f_ffff_ffff_f000;
    private const ulong Present = 1;
    private const ulong Write = 1 << 1;
    private const ulong Large = 1 << 7;

    private readonly GuestMemoryReader _memory;
    private readonly ulong _root;
    private readonly byte[][] _tables;
    private readonly ulong[] _tableAddresses;

    /// <param name="memory">The guest.</param>
    /// <param name="root">Guest-physical address of the top table.</param>
    /// <param name="levels">4 or 5.</param>
    public GuestPageTables(GuestMemoryReader memory, GuestPhysicalAddress root, int levels)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(levels, 4);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(levels, 5);
        _memory = memory;
        _root = root.Value & AddressMask;
        Levels = levels;
        _tables = new byte[levels + 1][];
        _tableAddresses = new ulong[levels + 1];
        for (int level = 1; level <= levels; level++)
        {
            _tables[level] = new byte[PageIndex.PageSize];
        }

        Forget();
    }

    public int Levels { get; }

    public GuestPhysicalAddress Root => new(_root);

    /// <summary>Drops what was read: the next walk reads the guest's memory again.</summary>
    public void Forget() => Array.Fill(_tableAddresses, ulong.MaxValue);

    /// <summary>
    /// The leaf that maps <paramref name="address"/>. False when nothing does, the address is not canonical, or a table is not
    /// in RAM; <paramref name="mapping"/> then is the range (no physical address) of which all is known to be unmapped, so
    /// that a caller can step over it.
    /// </summary>
    public bool TryMap(GuestVirtualAddress address, out GuestMapping mapping)
    {
        int shift = 12 + (9 * (Levels - 1));
        int unused = 64 - (shift + 9);
        if ((ulong)((long)(address.Value << unused) >> unused) != address.Value)
        {
            mapping = new(address.Value & ~0xfffUL, 0, PageIndex.PageSize);
            return false;
        }

        ulong table = _root;
        for (int level = Levels; level >= 1; level--, shift -= 9)
        {
            ulong span = 1UL << shift;
            ulong first = address.Value & ~(span - 1);
            if (!TryTable(level, table, out var entries))
            {
                // Nothing below this table can be known: all that it maps counts as unmapped.
                ulong tableSpan = span << 9;
                mapping = new(tableSpan == 0 ? 0 : address.Value & ~(tableSpan - 1), 0, tableSpan == 0 ? ulong.MaxValue : tableSpan);
                return false;
            }

            int index = (int)(address.Value >> shift) & 511;
            ulong entry = BitConverter.ToUInt64(entries.Slice(index * 8, 8));
            if ((entry & Present) == 0)
            {
                mapping = new(first, 0, span);
                return false;
            }

            if (level == 1 || ((entry & Large) != 0 && level <= 3))
            {
                // In a large leaf the bits below its size (the PAT bit among them) are no part of the address.
                mapping = new(first, entry & AddressMask & ~(span - 1), span, (entry & Write) != 0);
                return true;
            }

            if ((entry & Large) != 0)
            {
                mapping = new(first, 0, span);
                return false;
            }

            table = entry & AddressMask;
        }

        mapping = default;
        return false;
    }

    /// <summary>One address; false when nothing maps it.</summary>
    public bool TryTranslate(GuestVirtualAddress address, out GuestPhysicalAddress physical)
    {
        if (TryMap(address, out var mapping))
        {
            physical = new(mapping.Physical + (address.Value - mapping.Virtual));
            return true;
        }

        physical = default;
        return false;
    }

    /// <summary>Reads virtual memory across pages; false when a part of it is not mapped to RAM.</summary>
    public bool TryRead(GuestVirtualAddress address, Span<byte> buffer)
    {
        ulong at = address.Value;
        while (!buffer.IsEmpty)
        {
            if (!TryMap(new(at), out var mapping))
            {
                return false;
            }

            ulong inMapping = at - mapping.Virtual;
            int bytes = (int)Math.Min((ulong)buffer.Length, mapping.Bytes - inMapping);
            if (!_memory.TryRead(new GuestPhysicalAddress(mapping.Physical + inMapping), buffer[..bytes]))
            {
                return false;
            }

            buffer = buffer[bytes..];
            at += (ulong)bytes;
        }

        return true;
    }

    /// <summary>Little-endian; false when it is not mapped to RAM.</summary>
    public unsafe bool TryRead<T>(GuestVirtualAddress address, out T value)
        where T : unmanaged
    {
        T read;
        // The span is exactly the local variable.
        if (TryRead(address, new Span<byte>(&read, sizeof(T))))
        {
            value = read;
            return true;
        }

        value = default;
        return false;
    }

    private bool TryTable(int level, ulong physical, out ReadOnlySpan<byte> entries)
    {
        byte[] table = _tables[level];
        entries = table;
        if (_tableAddresses[level] == physical)
        {
            return true;
        }

        _tableAddresses[level] = ulong.MaxValue;
        if (!_memory.TryRead(new GuestPhysicalAddress(physical), table))
        {
            return false;
        }

        _tableAddresses[level] = physical;
        return true;
    }
}
