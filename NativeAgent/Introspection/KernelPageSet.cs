using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// The pages that a guest's kernel itself lives in: its image, its page tables and its <c>struct page</c>s. A guest waits
/// for these more often than for any other, so they belong on the host where it runs. A hint: correct for what it names, and
/// silent about the kernel's other data (slabs, stacks, page cache).
/// </summary>
internal static class KernelPageSet
{
    /// <summary>A kernel of 16 TiB of RAM has some ten thousand tables for its direct map; more than this is not followed.</summary>
    private const int MaxTables = 1 << 18;

    private const ulong AddressMask = 0x000f_ffff_ffff_f000;

    public static void AddTo(GuestKernel kernel, GuestRam ram, PageBitmap into)
    {
        kernel.Forget();
        AddRange(ram, kernel.InfoPage.Value, PageIndex.PageSize, into);
        AddImage(kernel, ram, into);
        AddStructPages(kernel, ram, into);
        int budget = MaxTables;
        // The upper half of the address space is the kernel's.
        AddTables(kernel, ram, kernel.PageTables.Root.Value, kernel.PageTables.Levels, first: 256, into, ref budget);
    }

    private static void AddImage(GuestKernel kernel, GuestRam ram, PageBitmap into)
    {
        ulong bytes = kernel.Info.TryNumber("KERNEL_IMAGE_SIZE", out ulong size) ? Math.Min(size, 1UL << 30) : 1UL << 30;
        AddVirtual(kernel, ram, GuestKernel.KernelMap, bytes, into);
    }

    /// <summary>Sets the pages that hold the guest's <c>struct page</c>s.</summary>
    public static void AddStructPages(GuestKernel kernel, GuestRam ram, PageBitmap into)
    {
        int shift = kernel.Sections.PageCountShift;
        ulong size = (ulong)kernel.Pages.Size;
        foreach (ref readonly var segment in ram.Segments)
        {
            ulong frame = segment.Start >> PageIndex.PageShift;
            ulong end = (segment.Start + segment.Bytes) >> PageIndex.PageShift;
            while (frame < end)
            {
                ulong next = Math.Min(end, ((frame >> shift) + 1) << shift);
                if (kernel.Sections.TryGet(frame >> shift, out ulong memMap))
                {
                    AddVirtual(kernel, ram, memMap + (frame * size), (next - frame) * size, into);
                }

                frame = next;
            }
        }
    }

    private static void AddVirtual(GuestKernel kernel, GuestRam ram, ulong address, ulong bytes, PageBitmap into)
    {
        ulong end = address + bytes;
        while (bytes > 0)
        {
            bool mapped = kernel.PageTables.TryMap(new(address), out var mapping);
            ulong inMapping = address - mapping.Virtual;
            ulong part = Math.Min(mapping.Bytes - inMapping, bytes);
            if (mapped)
            {
                AddRange(ram, mapping.Physical + inMapping, part, into);
            }

            address += part;
            bytes = end - address;
        }
    }

    private static void AddTables(GuestKernel kernel, GuestRam ram, ulong table, int level, int first, PageBitmap into, ref int budget)
    {
        // As deep as the levels at most. The budget bounds tables that point at one another.
        if (budget-- <= 0 || !ram.TryPageOf(new(table), out long page))
        {
            return;
        }

        into[page] = true;
        if (level == 1)
        {
            return;
        }

        Span<byte> entries = stackalloc byte[PageIndex.PageSize];
        if (!kernel.Memory.TryRead(new GuestPhysicalAddress(table), entries))
        {
            return;
        }

        for (int i = first; i < 512; i++)
        {
            ulong entry = BitConverter.ToUInt64(entries.Slice(i * 8, 8));
            bool leaf = (entry & 0x80) != 0;
            if ((entry & 1) != 0 && !leaf)
            {
                AddTables(kernel, ram, entry & AddressMask, level - 1, 0, into, ref budget);
            }
        }
    }

    private static void AddRange(GuestRam ram, ulong physical, ulong bytes, PageBitmap into)
    {
        ulong end = physical + bytes;
        foreach (ref readonly var segment in ram.Segments)
        {
            ulong from = Math.Max(physical, segment.Start);
            ulong until = Math.Min(end, segment.Start + segment.Bytes);
            if (from < until)
            {
                long first = (long)((segment.RamOffset + (from - segment.Start)) >> PageIndex.PageShift);
                long last = (long)((segment.RamOffset + (until - segment.Start) - 1) >> PageIndex.PageShift);
                into.Fill(new(first, last - first + 1), true);
            }
        }
    }
}
