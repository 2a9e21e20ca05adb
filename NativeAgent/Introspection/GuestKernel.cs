using System.Text;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// The Linux kernel that runs in a guest, found in the guest's memory without any symbol file: its VMCOREINFO page, from that
/// its page tables and its array of <c>struct page</c>s.
/// <para>
/// All of it is the guest's word, so it only counts when it holds together: the page tables map themselves where they are,
/// the kernel's own <c>init_uts_ns</c> read through them says the release that VMCOREINFO says, and the page that holds the
/// VMCOREINFO is a page in use by the guest's own account. Where two pages pass with different contents, neither is believed.
/// </para>
/// One thread at a time. Does not own the RAM.
/// </summary>
internal sealed class GuestKernel
{
    /// <summary>__START_KERNEL_map: where x86-64 maps the kernel's image.</summary>
    internal const ulong KernelMap = 0xffff_ffff_8000_0000;

    private readonly byte[] _infoText;
    private KernelSymbols? _symbols;
    private bool _symbolsRead;

    private GuestKernel(
        GuestMemoryReader memory, GuestPhysicalAddress infoPage, byte[] infoText, VmCoreInfo info, GuestVirtualAddress topTable,
        GuestPageTables tables, SectionTable sections, StructPageFormat pages)
    {
        Memory = memory;
        TopTable = topTable;
        InfoPage = infoPage;
        _infoText = infoText;
        Info = info;
        PageTables = tables;
        Sections = sections;
        Pages = pages;
    }

    public GuestMemoryReader Memory { get; }

    /// <summary>Where the kernel sees its own top table (<c>init_top_pgt</c>), in its image.</summary>
    public GuestVirtualAddress TopTable { get; }

    /// <summary>As <c>uname -r</c> in the guest says.</summary>
    public string Release => Info.Release;

    public VmCoreInfo Info { get; }

    /// <summary>Where the VMCOREINFO lies.</summary>
    public GuestPhysicalAddress InfoPage { get; }

    public GuestPageTables PageTables { get; }

    public SectionTable Sections { get; }

    public StructPageFormat Pages { get; }

    /// <summary>The symbols that FCtrans looks at, read at the first use; null when this kernel does not tell them.</summary>
    public KernelSymbols? Symbols
    {
        get
        {
            if (!_symbolsRead)
            {
                _symbols = KernelSymbols.TryRead(this, KernelSymbols.Wanted, out _);
                _symbolsRead = true;
            }

            return _symbols;
        }
    }

    /// <summary>
    /// Looks for a kernel: follows the pointers of the one that the processors run, or else reads the beginning of every page
    /// that was ever touched, and no other.
    /// </summary>
    /// <param name="ram">The guest's RAM, with its segments.</param>
    /// <param name="memory">Reads it.</param>
    /// <param name="reason">Why there is none, or none that can be believed.</param>
    /// <returns>Null when memory must be treated as used.</returns>
    /// <param name="processors">What the guest's processors run, where that is known: only such a kernel counts.</param>
    /// <param name="mayMap">False on a host where the guest is paged, as for <see cref="FreePageScanner"/>.</param>
    public static GuestKernel? TryFind(
        GuestRam ram, GuestMemoryReader memory, out string reason, IReadOnlyList<GuestProcessor>? processors = null, bool mayMap = false)
    {
        if (ram.Segments.IsEmpty)
        {
            reason = "where the guest's RAM lies on its physical bus is not known";
            return null;
        }

        // What a running kernel points to is found in some milliseconds, however much memory the guest uses.
        if (processors is not null)
        {
            var pointed = VmCoreInfoPointers.Find(memory, processors);
            if (pointed.Count > 0 && OneOf(memory, pointed, processors, out reason) is { } running)
            {
                return running;
            }
        }

        var candidates = VmCoreInfoPages.Find(ram, mayMap, out bool tooMany);
        if (candidates.Count == 0)
        {
            reason = "no Linux kernel has described itself (VMCOREINFO) in the guest's memory yet";
            return null;
        }

        if (tooMany)
        {
            reason = $"more than {VmCoreInfoPages.MaxCandidates} pages of the guest look like a kernel's VMCOREINFO";
            return null;
        }

        return OneOf(memory, candidates, processors, out reason);
    }

    /// <summary>The kernel that one of these pages describes; null when none holds together, or two that differ do.</summary>
    private static GuestKernel? OneOf(
        GuestMemoryReader memory, List<GuestPhysicalAddress> candidates, IReadOnlyList<GuestProcessor>? processors, out string reason)
    {
        GuestKernel? found = null;
        reason = "";
        foreach (var candidate in candidates)
        {
            var kernel = TryOpen(memory, candidate, out string why);
            if (kernel is null || (processors is not null && !GuestProcessor.Run(processors, kernel, out why)))
            {
                reason = why;
            }
            else if (found is null)
            {
                found = kernel;
            }
            else if (!found.SaysTheSameAs(kernel))
            {
                reason = $"two kernels ({found.Release}, {kernel.Release}) describe themselves in the guest's memory, and both hold together";
                return null;
            }
        }

        if (found is not null)
        {
            reason = "";
        }

        return found;
    }

    /// <summary>One page that looks like a VMCOREINFO → the kernel that it describes; null, with the reason, when it does not hold together.</summary>
    internal static GuestKernel? TryOpen(GuestMemoryReader memory, GuestPhysicalAddress page, out string reason)
    {
        byte[] text = new byte[VmCoreInfo.MaxBytes];
        if (!memory.TryRead(page, text))
        {
            reason = "the VMCOREINFO page can't be read";
            return null;
        }

        if (!VmCoreInfo.TryParse(text, out var info, out reason))
        {
            reason = "VMCOREINFO: " + reason;
            return null;
        }

        if (!info.TryPlain("PAGESIZE", out ulong pageSize) || pageSize != PageIndex.PageSize)
        {
            reason = "VMCOREINFO: the guest's pages are not of 4096 bytes";
            return null;
        }

        if (info.TryNumber("sme_mask", out ulong encryption) && encryption != 0)
        {
            reason = "the guest's memory is encrypted (sme_mask): it can't be read from outside";
            return null;
        }

        if ((!info.TrySymbol("init_top_pgt", out ulong top) && !info.TrySymbol("swapper_pg_dir", out top)) ||
            top < KernelMap || top % PageIndex.PageSize != 0 || !info.TryNumber("phys_base", out ulong physicalBase))
        {
            reason = "VMCOREINFO: the kernel's page tables (init_top_pgt, phys_base) are missing or senseless";
            return null;
        }

        ulong root = top - KernelMap + physicalBase;
        int levels = info.TryNumber("pgtable_l5_enabled", out ulong five) && five != 0 ? 5 : 4;
        var tables = new GuestPageTables(memory, new(root), levels);
        if (root % PageIndex.PageSize != 0 || !tables.TryTranslate(new(top), out var self) || self.Value != root)
        {
            reason = $"kernel {info.Release}: its page tables are not where its VMCOREINFO says";
            return null;
        }

        if (!SectionTable.TryCreate(info, tables, out var sections, out reason) ||
            !StructPageFormat.TryCreate(info, out var pages, out reason))
        {
            reason = "VMCOREINFO: " + reason;
            return null;
        }

        if (pages.Orders - 1 > sections.PageCountShift)
        {
            // The kernel's own build fails then: no free block may be larger than a section.
            reason = "VMCOREINFO: LENGTH(zone.free_area) does not fit SECTION_SIZE_BITS";
            return null;
        }

        var kernel = new GuestKernel(memory, page, text, info, new(top), tables, sections, pages);
        return kernel.HoldsTogether(out reason) ? kernel : null;
    }

    /// <summary>
    /// Whether this kernel is still the one in memory: the same VMCOREINFO, which still holds together. Reads a few pages.
    /// Also makes all later reads fresh ones.
    /// </summary>
    public bool IsStillThere(out string reason)
    {
        Span<byte> now = stackalloc byte[VmCoreInfo.MaxBytes];
        if (!Memory.TryRead(InfoPage, now) || !now.SequenceEqual(_infoText))
        {
            reason = $"kernel {Release} is gone from the guest's memory";
            return false;
        }

        Forget();
        if (!PageTables.TryTranslate(TopTable, out var self) || self != PageTables.Root)
        {
            reason = $"kernel {Release}: its page tables are gone";
            return false;
        }

        return HoldsTogether(out reason);
    }

    /// <summary>Whether both say the same of themselves: one boot of one kernel, found twice. Two boots differ by where KASLR put the kernel.</summary>
    public bool SaysTheSameAs(GuestKernel other) => _infoText.AsSpan().SequenceEqual(other._infoText);

    /// <summary>Drops what was kept of the guest's page tables and sections.</summary>
    public void Forget()
    {
        PageTables.Forget();
        Sections.Forget();
    }

    /// <summary>Reads the <c>struct page</c> of a page frame into <paramref name="buffer"/> (<see cref="StructPageFormat.Size"/> bytes); false when there is none.</summary>
    public bool TryReadStructPage(ulong frame, Span<byte> buffer)
        => Sections.TryGet(frame >> Sections.PageCountShift, out ulong memMap)
            && PageTables.TryRead(new GuestVirtualAddress(memMap + (frame * (ulong)Pages.Size)), buffer[..Pages.Size]);

    private bool HoldsTogether(out string reason)
    {
        if (!Info.TryOffset("uts_namespace.name", out ulong nameOffset))
        {
            // Told since Linux 5.11, when the 32-bit count of references that had been its first member moved.
            nameOffset = 4;
        }

        // struct new_utsname: six strings of 65 bytes, the release is the third.
        if (Info.TrySymbol("init_uts_ns", out ulong utsNamespace) && nameOffset < 4096)
        {
            Span<byte> release = stackalloc byte[65];
            if (!PageTables.TryRead(new GuestVirtualAddress(utsNamespace + nameOffset + 130), release))
            {
                reason = $"kernel {Release}: its data can't be read through its page tables";
                return false;
            }

            int end = release.IndexOf((byte)0);
            if (end < 0 || !release[..end].SequenceEqual(Encoding.ASCII.GetBytes(Release)))
            {
                reason = $"kernel {Release}: its own name (init_uts_ns) says something else";
                return false;
            }
        }
        else
        {
            reason = $"kernel {Release}: VMCOREINFO does not say where init_uts_ns is";
            return false;
        }

        Span<byte> page = stackalloc byte[512];
        if (!TryReadStructPage(InfoPage.Value >> PageIndex.PageShift, page))
        {
            reason = $"kernel {Release}: its page structures can't be read";
            return false;
        }

        if (BitConverter.ToUInt32(page.Slice(Pages.MapcountOffset, 4)) == Pages.BuddyValue)
        {
            // A page in use is never in the buddy allocator: these are the remains of a kernel before this one.
            reason = $"kernel {Release}: by its own account the page that describes it is free";
            return false;
        }

        reason = "";
        return true;
    }
}
