using FCtrans.Agent.Interop;

namespace FCtrans.Agent.Memory;

/// <summary>A part of the guest's physical bus that is RAM: <paramref name="Bytes"/> from <paramref name="Start"/> lie in the VM from byte <paramref name="RamOffset"/> on (page index × 4096).</summary>
internal readonly record struct GuestRamSegment(ulong Start, ulong Bytes, ulong RamOffset);

/// <summary>
/// All RAM of one VM, its blocks laid end to end, and where each part of it appears on the guest's physical bus.
/// The one place that converts between page indices, file offsets, addresses in QEMU and guest-physical addresses.
/// Owns the blocks. Immutable but for what is set before it is shared, so any thread may use it.
/// </summary>
internal sealed unsafe class GuestRam : IDisposable
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

    /// <summary>What <see cref="Read"/> finds where the files have holes; null: nothing. Set before others use this; not owned.</summary>
    public IPageContent? Beside { get; set; }

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

    /// <summary>
    /// Reads content, never through a mapping: no page is made or waited for. A page that is nowhere here reads as zeros. Returns the bytes read, all of
    /// them or fewer at the end of the file, or -errno.
    /// </summary>
    /// <param name="block">One of these.</param>
    /// <param name="offset">In the block's file.</param>
    public nint Read(RamBlock block, byte* buffer, long bytes, long offset)
    {
        if (Beside is not { } beside)
        {
            return SparseFile.Read(block.File, buffer, (nuint)bytes, offset);
        }

        byte* whole = stackalloc byte[PageIndex.PageSize];
        for (long at = offset, end = offset + bytes; at < end;)
        {
            long page = block.FirstPage + (at >> PageIndex.PageShift);
            long next = Math.Min(end, (at & -PageIndex.PageSize) + PageIndex.PageSize);
            bool here = false;
            int errno = page < block.EndPage ? beside.TryGet(page, whole, out here) : Errno.None;
            if (errno != Errno.None)
            {
                return -errno;
            }

            if (here)
            {
                new ReadOnlySpan<byte>(whole + (at & (PageIndex.PageSize - 1)), (int)(next - at)).CopyTo(new(buffer + (at - offset), (int)(next - at)));
                at = next;
                continue;
            }

            // What is not beside the file any more by now is in it.
            for (page++; next < end && page < block.EndPage && !beside.Has(page); page++)
            {
                next = Math.Min(end, next + PageIndex.PageSize);
            }

            nint read = SparseFile.Read(block.File, buffer + (at - offset), (nuint)(next - at), at);
            if (read != (nint)(next - at))
            {
                return read < 0 ? read : (nint)(at - offset) + read;
            }

            at = next;
        }

        return (nint)bytes;
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
