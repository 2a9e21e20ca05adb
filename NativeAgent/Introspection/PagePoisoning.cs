using System.Text;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// Tells whether a guest's kernel writes a pattern into free pages and checks it when it takes them (page poisoning, a
/// debugging aid). The content of free pages is not dead then: none may be skipped. Told by the kernel's command line where
/// its symbols can be read, and by the pattern itself in free pages, which needs no symbols. <c>init_on_free</c> is no
/// poisoning: it leaves zeros, as a skipped page has.
/// </summary>
internal static unsafe class PagePoisoning
{
    /// <summary>PAGE_POISON.</summary>
    private const byte Pattern = 0xaa;

    /// <summary>Some pages are freed before the kernel poisons, so one page without the pattern says little.</summary>
    private const int Samples = 64;

    /// <summary>The kernel's command line; null when it can't be read.</summary>
    public static string? CommandLine(GuestKernel kernel)
    {
        if (kernel.Symbols is not { } symbols ||
            !symbols.TryGet("saved_command_line", out var pointerAt) ||
            !kernel.PageTables.TryRead(pointerAt, out ulong pointer))
        {
            return null;
        }

        // COMMAND_LINE_SIZE is 2048 on x86, plus what a boot configuration adds. By pages: the last may be the last there is.
        byte[] text = new byte[8192];
        int have = 0;
        while (have < text.Length)
        {
            ulong at = pointer + (ulong)have;
            int part = (int)Math.Min((ulong)(text.Length - have), 4096 - (at & 4095));
            var piece = text.AsSpan(have, part);
            if (!kernel.PageTables.TryRead(new GuestVirtualAddress(at), piece))
            {
                return null;
            }

            int end = piece.IndexOf((byte)0);
            if (end >= 0)
            {
                return Encoding.Latin1.GetString(text, 0, have + end);
            }

            have += part;
        }

        return null;
    }

    /// <summary>The option in a kernel's command line that turns poisoning on; null when there is none.</summary>
    public static string? OptionIn(string commandLine)
    {
        string? found = null;
        foreach (string option in commandLine.Split([' ', '\t', '\n'], StringSplitOptions.RemoveEmptyEntries))
        {
            if (option == "--")
            {
                break;
            }

            // The kernel takes - and _ for the same, and later options win.
            int equals = option.IndexOf('=', StringComparison.Ordinal);
            string name = (equals < 0 ? option : option[..equals]).Replace('-', '_');
            string value = equals < 0 ? "" : option[(equals + 1)..].Trim('"');
            if (name is "page_poison" or "debug_pagealloc")
            {
                bool on = value.Length == 0 ? name == "page_poison"
                    : value[0] is '1' or 'y' or 'Y' or 't' or 'T' || value.Equals("on", StringComparison.OrdinalIgnoreCase);
                if (on)
                {
                    found = option;
                }
                else if (found is not null && found.Replace('-', '_').StartsWith(name, StringComparison.Ordinal))
                {
                    found = null;
                }
            }
        }

        return found;
    }

    /// <summary>
    /// Whether one of a few free pages that hold data is full of the pattern. Reads no hole. Sampled over all of the RAM.
    /// </summary>
    /// <param name="ram">The guest's RAM.</param>
    /// <param name="unused">As of a scan; of these only pages with data are looked at, and those are free ones.</param>
    public static bool PatternIn(GuestRam ram, PageBitmap unused)
    {
        byte* page = stackalloc byte[PageIndex.PageSize];
        foreach (var block in ram.Blocks)
        {
            long stride = Math.Max(block.PageCount / Samples, 1);
            for (long first = block.FirstPage; first < block.EndPage; first += stride)
            {
                long end = Math.Min(first + stride, block.EndPage);
                if (NextFreeWithData(block, unused, first, end) is long free and >= 0 &&
                    ram.Read(block, page, PageIndex.PageSize, (free - block.FirstPage) << PageIndex.PageShift) == PageIndex.PageSize &&
                    new ReadOnlySpan<byte>(page, PageIndex.PageSize).IndexOfAnyExcept(Pattern) < 0)
                {
                    return true;
                }
            }
        }

        return false;
    }

    private static long NextFreeWithData(RamBlock block, PageBitmap unused, long from, long end)
    {
        while (from < end)
        {
            long data = SparseFile.NextData(block.File, (from - block.FirstPage) << PageIndex.PageShift);
            if (data < 0)
            {
                return -1;
            }

            long page = block.FirstPage + (data >> PageIndex.PageShift);
            long free = page < end ? unused.NextSet(page) : -1;
            if (free < 0 || free >= end)
            {
                return -1;
            }

            if (free == page)
            {
                return page;
            }

            from = free;
        }

        return -1;
    }
}
