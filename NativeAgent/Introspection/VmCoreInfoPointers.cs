using System.Runtime.InteropServices;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// Finds the VMCOREINFO of the kernel that a guest's processors run, by the kernel's own pointer to it: <c>vmcoreinfo_data</c>,
/// a variable in the writable part of its image that holds the address of the page in the direct map (Linux,
/// kernel/crash_core.c, kernel/vmcore_info.c). The variable's name can't be looked up before VMCOREINFO is known, so every word
/// of the image's data that could be such a pointer is followed.
/// <para>
/// Beside <see cref="VmCoreInfoPages"/>: its cost is that of the kernel's image, not of the guest's memory (a guest that uses
/// 300 GiB would take tens of seconds), it works where most memory lies on other hosts, and copies and decoys elsewhere in
/// memory are not looked at. What it finds is the guest's word all the same: <see cref="GuestKernel"/> judges it.
/// </para>
/// </summary>
internal static class VmCoreInfoPointers
{
    /// <summary>x86-64 maps the image and its modules in the last 2 GiB, the image in the first of them (KERNEL_IMAGE_SIZE).</summary>
    private const ulong ImageSpan = 1UL << 30;

    /// <summary>The data of today's kernels is 5 to 20 MB. All looks together read no more than this, whatever the page tables say.</summary>
    private const ulong MaxBytes = 128UL << 20;

    /// <summary>Pointers followed in all; a kernel has hundreds.</summary>
    private const int MaxPointers = 64 * 1024;

    private const int Chunk = 64 * 1024;

    /// <summary>The lowest address of the kernel's half, with 5 levels of page tables.</summary>
    private const ulong KernelHalf = 0xff00_0000_0000_0000;

    /// <summary>The pages, each once; none when no processor runs a kernel that has one. Reads bounded amounts, by <c>pread</c>.</summary>
    public static List<GuestPhysicalAddress> Find(GuestMemoryReader memory, IReadOnlyList<GuestProcessor> processors)
    {
        var found = new List<GuestPhysicalAddress>();
        var seen = new HashSet<GuestPhysicalAddress>();
        ulong bytesLeft = MaxBytes;
        int pointersLeft = MaxPointers;
        byte[] buffer = new byte[Chunk];
        foreach (var processor in processors)
        {
            if (!processor.LongMode)
            {
                continue;
            }

            foreach (var root in processor.Roots)
            {
                if (!seen.Add(root))
                {
                    continue;
                }

                var tables = new GuestPageTables(memory, root, processor.Levels);
                InImage(memory, tables, buffer, found, ref bytesLeft, ref pointersLeft);
                if (found.Count > 0)
                {
                    return found;
                }
            }
        }

        return found;
    }

    private static void InImage(
        GuestMemoryReader memory, GuestPageTables tables, byte[] buffer, List<GuestPhysicalAddress> found, ref ulong bytesLeft, ref int pointersLeft)
    {
        // Pointers are followed by tables of their own: those of the image stay at hand.
        var follow = new GuestPageTables(memory, tables.Root, tables.Levels);
        for (ulong at = GuestKernel.KernelMap; at - GuestKernel.KernelMap < ImageSpan;)
        {
            bool mapped = tables.TryMap(new(at), out var mapping);
            if (mapped && mapping.Writable)
            {
                ulong bytes = Math.Min(mapping.Bytes, bytesLeft);
                bytesLeft -= bytes;
                for (ulong done = 0; done < bytes && pointersLeft > 0; done += Chunk)
                {
                    var part = buffer.AsSpan(0, (int)Math.Min(Chunk, bytes - done));
                    if (memory.TryRead(new GuestPhysicalAddress(mapping.Physical + done), part))
                    {
                        Follow(memory, follow, MemoryMarshal.Cast<byte, ulong>(part), found, ref pointersLeft);
                    }
                }
            }

            // The whole rest may be one unmapped range; its end may lie past the last address.
            ulong next = mapping.Virtual + mapping.Bytes;
            if (next <= at)
            {
                return;
            }

            at = next;
        }
    }

    private static void Follow(
        GuestMemoryReader memory, GuestPageTables tables, ReadOnlySpan<ulong> words, List<GuestPhysicalAddress> found, ref int pointersLeft)
    {
        Span<byte> start = stackalloc byte[VmCoreInfo.Magic.Length];
        foreach (ulong word in words)
        {
            // The beginning of a page in the kernel's half, below its image.
            if (word - KernelHalf >= GuestKernel.KernelMap - KernelHalf || (word & (PageIndex.PageSize - 1)) != 0 || pointersLeft == 0)
            {
                continue;
            }

            pointersLeft--;
            if (tables.TryTranslate(new(word), out var page) && memory.TryRead(page, start) && start.SequenceEqual(VmCoreInfo.Magic) &&
                !found.Contains(page) && found.Count < VmCoreInfoPages.MaxCandidates)
            {
                found.Add(page);
            }
        }
    }
}
