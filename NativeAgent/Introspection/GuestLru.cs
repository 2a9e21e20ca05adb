using System.Buffers.Binary;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// What a guest's kernel itself thinks of its pages: those on its LRU lists that it has on an active one, saw referenced, or counts to
/// a working set (mm/vmscan.c, mm/workingset.c). The flags' numbers differ from kernel to kernel, so they are taken from its own types
/// (enum pageflags). A hint, for what is likely to be wanted next; a kernel that keeps generations (MGLRU) says less by these flags. One thread at a time.
/// </summary>
internal sealed class GuestLru
{
    /// <summary>Frames whose structures are read at once.</summary>
    private const int Chunk = 1024;

    private readonly GuestKernel _kernel;
    private readonly int _flagsAt;
    private readonly int _headAt;
    private readonly ulong _lru;
    private readonly ulong _hot;
    private readonly byte[] _structures;

    private GuestLru(GuestKernel kernel, int flagsAt, int headAt, ulong lru, ulong hot)
    {
        _kernel = kernel;
        _flagsAt = flagsAt;
        _headAt = headAt;
        _lru = lru;
        _hot = hot;
        _structures = new byte[Chunk * kernel.Pages.Size];
    }

    /// <summary>Null when the kernel does not tell what its page flags are (no BTF).</summary>
    /// <param name="kernel">Found a moment ago; must outlive this.</param>
    public static GuestLru? TryOpen(GuestKernel kernel)
        => PerCpuLayout.TryTypes(kernel, out var types) ? TryOpen(kernel, types) : null;

    /// <summary>As the other, with the kernel's types.</summary>
    public static GuestLru? TryOpen(GuestKernel kernel, Btf types)
    {
        int last = kernel.Pages.Size - sizeof(ulong);
        if (!types.TryMember("page", "flags", out int flagsAt, out _, out _) || flagsAt > last
            || !types.TryMember("page", "compound_head", out int headAt, out _, out _) || headAt > last
            || !TryFlag(types, "PG_lru", out ulong lru) || !TryFlag(types, "PG_active", out ulong hot))
        {
            return null;
        }

        hot |= TryFlag(types, "PG_referenced", out ulong referenced) ? referenced : 0;
        hot |= TryFlag(types, "PG_workingset", out ulong workingSet) ? workingSet : 0;
        return new(kernel, flagsAt, headAt, lru, hot);
    }

    /// <summary>Sets in <paramref name="into"/> the pages that the guest's kernel holds for hot. Cost: with the pages looked at.</summary>
    /// <param name="ram">The guest's RAM.</param>
    /// <param name="unused">Not looked at.</param>
    /// <param name="into">Gets the pages.</param>
    public void AddHot(GuestRam ram, PageBitmap unused, PageBitmap into) => AddHot(ram, new(0, ram.PageCount), unused, into);

    /// <summary>As the other, of some pages only.</summary>
    public void AddHot(GuestRam ram, PageRange part, PageBitmap unused, PageBitmap into)
    {
        _kernel.Forget();
        int shift = _kernel.Sections.PageCountShift;
        foreach (ref readonly var segment in ram.Segments)
        {
            long segmentPage = (long)(segment.RamOffset >> PageIndex.PageShift);
            long firstPage = Math.Max(segmentPage, part.First);
            long endPage = Math.Min(segmentPage + (long)(segment.Bytes >> PageIndex.PageShift), part.End);
            ulong firstFrame = (segment.Start >> PageIndex.PageShift) + (ulong)(firstPage - segmentPage);
            ulong end = firstFrame + (ulong)Math.Max(0, endPage - firstPage);
            for (ulong frame = firstFrame; frame < end;)
            {
                ulong next = Math.Min(Math.Min(end, ((frame >> shift) + 1) << shift), (frame + Chunk) & ~(ulong)(Chunk - 1));
                var pages = new PageRange(firstPage + (long)(frame - firstFrame), (long)(next - frame));
                if (_kernel.Sections.TryGet(frame >> shift, out ulong memMap) && !unused.Covers(pages))
                {
                    var read = _structures.AsSpan(0, (int)pages.Count * _kernel.Pages.Size);
                    if (_kernel.PageTables.TryRead(new GuestVirtualAddress(memMap + (frame * (ulong)_kernel.Pages.Size)), read))
                    {
                        AddHot(pages, read, unused, into);
                    }
                }

                frame = next;
            }
        }
    }

    private static bool TryFlag(Btf types, string name, out ulong mask)
    {
        bool known = types.TryEnumerator("pageflags", name, out int bit) && bit is >= 0 and < 32;
        mask = known ? 1UL << bit : 0;
        return known;
    }

    private void AddHot(PageRange pages, ReadOnlySpan<byte> structures, PageBitmap unused, PageBitmap into)
    {
        int size = _kernel.Pages.Size;
        bool headIsHot = false;
        for (int i = 0; i < pages.Count; i++)
        {
            var structure = structures.Slice(i * size, size);
            // Bit 0 marks a tail of a compound page; only its head, which lies before it, tells what it is.
            if ((BinaryPrimitives.ReadUInt64LittleEndian(structure[_headAt..]) & 1) == 0)
            {
                ulong flags = BinaryPrimitives.ReadUInt64LittleEndian(structure[_flagsAt..]);
                headIsHot = (flags & _lru) != 0 && (flags & _hot) != 0;
            }

            if (headIsHot && !unused[pages.First + i])
            {
                into[pages.First + i] = true;
            }
        }
    }
}
