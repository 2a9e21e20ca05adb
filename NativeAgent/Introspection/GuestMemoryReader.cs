using System.Diagnostics.CodeAnalysis;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// Reads a guest's physical memory with <c>pread</c> on its RAM files, so that no read ever allocates a page or waits for one
/// that lies on another host: a hole, and so a remote page, reads as zeros. Does not own the RAM. Any thread may use it.
/// </summary>
internal sealed unsafe class GuestMemoryReader(GuestRam ram)
{
    public GuestRam Ram { get; } = ram;

    /// <summary>Gets each page that is read, while it is set; null: nobody asks. Only where one thread reads.</summary>
    public PageBitmap? Reads { get; set; }

    /// <summary>Whether a page's content may be on another host at this moment, asked while it is set; null: nobody wants to know. Only where one thread reads.</summary>
    public Func<long, bool>? IsAway { get; set; }

    /// <summary>Something was read that <see cref="IsAway"/> says was not here: zeros, which mean nothing. Whoever wants to know clears it before.</summary>
    public bool MetAway { get; set; }

    /// <summary>Fills <paramref name="buffer"/>; false (with undefined content) when a byte of it is not RAM or can't be read.</summary>
    public bool TryRead(GuestPhysicalAddress address, Span<byte> buffer)
    {
        ulong at = address.Value;
        while (!buffer.IsEmpty)
        {
            if (!TryLocate(new(at), out var block, out long offset, out ulong contiguous))
            {
                return false;
            }

            int bytes = (int)Math.Min((ulong)buffer.Length, contiguous);
            var pages = default(PageRange);
            if ((Reads is not null || IsAway is not null) && Ram.TryPageOf(new(at), out long page))
            {
                pages = new(page, (long)(((at & (PageIndex.PageSize - 1)) + (ulong)bytes - 1) >> PageIndex.PageShift) + 1);
            }

            // Before and after: a page may come or leave while it is read.
            NoteAway(pages);
            // The span stays pinned for the call, and the length is that of the span.
            fixed (byte* target = buffer)
            {
                if (Ram.Read(block, target, bytes, offset) != bytes)
                {
                    return false;
                }
            }

            NoteAway(pages);
            Reads?.Fill(pages, true);

            buffer = buffer[bytes..];
            at += (ulong)bytes;
        }

        return true;
    }

    /// <summary>Little-endian; false when it is not RAM.</summary>
    public bool TryRead<T>(GuestPhysicalAddress address, out T value)
        where T : unmanaged
    {
        T read;
        if (TryRead(address, new Span<byte>(&read, sizeof(T))))
        {
            value = read;
            return true;
        }

        value = default;
        return false;
    }

    /// <summary>
    /// Where a guest-physical address lies: the RAM block, the offset in its file, and how many bytes from there on
    /// (<paramref name="contiguous"/>, at least 1) are consecutive both on the guest's bus and in the file.
    /// </summary>
    public bool TryLocate(GuestPhysicalAddress address, [NotNullWhen(true)] out RamBlock? block, out long offset, out ulong contiguous)
    {
        foreach (ref readonly var segment in Ram.Segments)
        {
            ulong inSegment = address.Value - segment.Start;
            if (inSegment >= segment.Bytes)
            {
                continue;
            }

            ulong inRam = segment.RamOffset + inSegment;
            foreach (var candidate in Ram.Blocks)
            {
                ulong inBlock = inRam - ((ulong)candidate.FirstPage << PageIndex.PageShift);
                ulong blockBytes = (ulong)candidate.PageCount << PageIndex.PageShift;
                if (inBlock < blockBytes)
                {
                    block = candidate;
                    offset = (long)inBlock;
                    contiguous = Math.Min(segment.Bytes - inSegment, blockBytes - inBlock);
                    return true;
                }
            }
        }

        block = null;
        offset = 0;
        contiguous = 0;
        return false;
    }

    private void NoteAway(PageRange pages)
    {
        for (long page = pages.First; IsAway is { } isAway && !MetAway && page < pages.End; page++)
        {
            MetAway = isAway(page);
        }
    }
}
