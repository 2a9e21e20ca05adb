namespace FCtrans.Agent.Memory;

/// <summary>A part of the guest's physical bus that is RAM: <paramref name="Bytes"/> from <paramref name="Start"/> lie in the VM from byte <paramref name="RamOffset"/> on (page index × 4096).</summary>
internal readonly record struct GuestRamSegment(ulong Start, ulong Bytes, ulong RamOffset);

/// <summary>
/// All RAM of one VM, its blocks laid end to end, and where each part of it appears on the guest's physical bus.
/// The one place that converts between page indices, file offsets, addresses in QEMU and guest-physical addresses.
/// Owns the blocks. Immutable, so any thread may use it.
/// </summary>
internal sealed class GuestRam : IDisposable
{
    private readonly RamBlock[] _blocks;
    private readonly GuestRamSegment[] _segments;

    /// <param name="blocks">In order, without gaps, from page 0.</param>
    /// <param name="segments">From the monitor's <c>info mtree -f</c>; may be empty where nobody introspects (a destination).</param>
    /// <exception cref="ArgumentException">The blocks have gaps, or a segment reaches outside them.</exception>
    public GuestRam(IReadOnlyList<RamBlock> blocks, IReadOnlyList<GuestRamSegment> segments)
    {
        _blocks = [.. blocks];
        _segments = [.. segments.OrderBy(s => s.Start)];
        long next = 0;
        foreach (var block in _blocks)
        {
            if (block.FirstPage != next || block.PageCount <= 0)
            {
                throw new ArgumentException($"RAM block {block.Id} does not follow the one before it.", nameof(blocks));
            }

            next = block.EndPage;
        }

        PageCount = next;
        foreach (var segment in _segments)
        {
            if (segment.RamOffset > (ulong)TotalBytes || segment.Bytes > (ulong)TotalBytes - segment.RamOffset)
            {
                throw new ArgumentException($"Guest-physical 0x{segment.Start:x} lies outside the RAM blocks.", nameof(segments));
            }
        }
    }

    public long PageCount { get; }

    public long TotalBytes => PageCount << PageIndex.PageShift;

    public ReadOnlySpan<RamBlock> Blocks => _blocks;

    /// <summary>Sorted by guest-physical start.</summary>
    public ReadOnlySpan<GuestRamSegment> Segments => _segments;

    /// <exception cref="ArgumentOutOfRangeException">No such page.</exception>
    public RamBlock BlockOf(long page)
    {
        foreach (var block in _blocks)
        {
            if (page >= block.FirstPage && page < block.EndPage)
            {
                return block;
            }
        }

        throw new ArgumentOutOfRangeException(nameof(page), page, "The VM has no such page.");
    }

    /// <summary>Where QEMU has mapped <paramref name="page"/>.</summary>
    public HostAddress AddressOf(long page)
    {
        var block = BlockOf(page);
        return block.MappedAt + (ulong)((page - block.FirstPage) << PageIndex.PageShift);
    }

    /// <summary>The page that QEMU has mapped at <paramref name="address"/>; false when that is not guest RAM.</summary>
    public bool TryPageAt(HostAddress address, out long page)
    {
        foreach (var block in _blocks)
        {
            ulong offset = address.Value - block.MappedAt.Value;
            if (offset < (ulong)block.PageCount << PageIndex.PageShift)
            {
                page = block.FirstPage + (long)(offset >> PageIndex.PageShift);
                return true;
            }
        }

        page = -1;
        return false;
    }

    /// <summary>The page at a guest-physical address; false when there is no RAM.</summary>
    public bool TryPageOf(GuestPhysicalAddress address, out long page)
    {
        foreach (var segment in _segments)
        {
            ulong offset = address.Value - segment.Start;
            if (offset < segment.Bytes)
            {
                page = (long)((segment.RamOffset + offset) >> PageIndex.PageShift);
                return true;
            }
        }

        page = -1;
        return false;
    }

    public void Dispose()
    {
        foreach (var block in _blocks)
        {
            block.Dispose();
        }
    }
}
