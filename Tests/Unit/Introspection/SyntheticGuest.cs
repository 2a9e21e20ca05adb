using System.Globalization;
using System.Text;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;

namespace FCtrans.Unit.Tests.Introspection;

/// <summary>How a synthesised kernel lays out its structures; the defaults are those of Linux 6.1 on x86-64.</summary>
public sealed record SyntheticLayout
{
    public string Release { get; init; } = "6.1.0-synthetic";

    public int Levels { get; init; } = 4;

    public int SectionBits { get; init; } = 27;

    public int PhysicalBits { get; init; } = 46;

    public int SectionSize { get; init; } = 16;

    public bool Flat { get; init; }

    public int PageSize { get; init; } = 64;

    public int MapcountOffset { get; init; } = 48;

    public int PrivateOffset { get; init; } = 40;

    public long Buddy { get; init; } = -129;

    /// <summary>Null: before Linux 5.1.</summary>
    public long? Offline { get; init; } = -257;

    /// <summary>Null: before Linux 6.16, or built without unaccepted memory.</summary>
    public long? Unaccepted { get; init; }

    public int Orders { get; init; } = 11;

    /// <summary>Map the struct pages by 2 MiB leaves.</summary>
    public bool LargeLeaves { get; init; } = true;

    public long PhysicalBase { get; init; }

    /// <summary>Of the names in <c>struct uts_namespace</c>: 4 before Linux 5.11.</summary>
    public int NameOffset { get; init; }

    /// <summary>Further flags in the low bits of section_mem_map, beyond the three that every kernel has.</summary>
    public ulong SectionFlags { get; init; } = 8;

    public ulong LowBytes { get; init; } = 256 << 20;

    public ulong HighBytes { get; init; } = 256 << 20;
}

/// <summary>
/// A sparse file laid out as the memory of a guest with a Linux kernel: page tables, VMCOREINFO, sections, struct pages. RAM
/// below and above 4 GiB, as on q35. Every page frame is "in use" (_mapcount 0xffffffff, nothing mapped) until said otherwise.
/// </summary>
internal sealed unsafe class SyntheticGuest : IDisposable
{
    public const ulong HighStart = 0x1_0000_0000;
    private const ulong ImageOffset = 0x100_0000;
    private const ulong TopOffset = ImageOffset + 0x10000;
    private const ulong UtsOffset = ImageOffset + 0x20000;
    private const ulong DataOffset = ImageOffset + 0x30000;

    private readonly Dictionary<ulong, ulong> _memMaps = [];
    private readonly ulong _direct;
    private readonly ulong _vmemmap;
    private readonly string _path;
    private ulong _next;

    /// <param name="layout">How its kernel lays things out.</param>
    /// <param name="withInfo">Whether there is a VMCOREINFO.</param>
    /// <param name="path">Where its memory is to lie, for a process that plays it; the caller's to delete. Default: a file without a name.</param>
    public SyntheticGuest(SyntheticLayout layout, bool withInfo = true, string? path = null)
    {
        Layout = layout;
        _path = path ?? $"/dev/shm/fctrans-unit-{Guid.NewGuid():N}";
        using (File.Create(_path))
        {
        }

        var file = SparseFile.Open(_path, write: true);
        if (path is null)
        {
            File.Delete(_path);
        }

        ulong total = layout.LowBytes + layout.HighBytes;
        SparseFile.SetLength(file, (long)total);
        var segments = new List<GuestRamSegment> { new(0, layout.LowBytes, 0) };
        if (layout.HighBytes > 0)
        {
            segments.Add(new(HighStart, layout.HighBytes, layout.LowBytes));
        }

        Ram = new GuestRam([new RamBlock("ram0", 0, (long)(total >> 12), new(0), file, _path)], segments);
        Memory = new GuestMemoryReader(Ram);
        _direct = layout.Levels == 5 ? 0xff11_0000_0000_0000 : 0xffff_8880_0000_0000;
        _vmemmap = layout.Levels == 5 ? 0xffd4_0000_0000_0000 : 0xffff_ea00_0000_0000;
        Root = ImagePhysical(TopOffset);
        _next = ImagePhysical(ImageOffset) + 0x40_0000;

        Map(GuestKernel.KernelMap + ImageOffset, ImagePhysical(ImageOffset), leafLevel: 2);
        Map(_direct, 0, leafLevel: 3);
        Write(ImagePhysical(UtsOffset) + (ulong)layout.NameOffset + 130, Encoding.ASCII.GetBytes(layout.Release + "\0"));
        MakeSections();
        InfoPage = Allocate(4096);
        if (withInfo)
        {
            Write(InfoPage, Encoding.ASCII.GetBytes(InfoText()));
        }
    }

    public SyntheticLayout Layout { get; }

    public GuestRam Ram { get; }

    public GuestMemoryReader Memory { get; }

    public ulong Root { get; }

    public ulong InfoPage { get; }

    public ulong SectionArray { get; private set; }

    /// <summary>Physical addresses of the pages full of sections.</summary>
    public List<ulong> SectionRoots { get; } = [];

    public long AllocatedBytes => SparseFile.AllocatedBytes(Ram.Blocks[0].File);

    public string InfoText(params (string Key, string? Value)[] changes)
    {
        var l = Layout;
        var lines = new List<(string Key, string? Value)>
        {
            ("OSRELEASE", l.Release),
            ("PAGESIZE", "4096"),
            ("SYMBOL(init_uts_ns)", Hex(GuestKernel.KernelMap + UtsOffset)),
            ("OFFSET(uts_namespace.name)", $"{l.NameOffset}"),
            ("SYMBOL(swapper_pg_dir)", Hex(GuestKernel.KernelMap + TopOffset)),
            ("SYMBOL(mem_section)", Hex(SectionArray)),
            ("LENGTH(mem_section)", SectionArrayLength.ToString(CultureInfo.InvariantCulture)),
            ("SIZE(mem_section)", $"{l.SectionSize}"),
            ("OFFSET(mem_section.section_mem_map)", "0"),
            ("NUMBER(SECTION_SIZE_BITS)", $"{l.SectionBits}"),
            ("NUMBER(MAX_PHYSMEM_BITS)", $"{l.PhysicalBits}"),
            ("SIZE(page)", $"{l.PageSize}"),
            ("OFFSET(page._mapcount)", $"{l.MapcountOffset}"),
            ("OFFSET(page.private)", $"{l.PrivateOffset}"),
            ("LENGTH(zone.free_area)", $"{l.Orders}"),
            ("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", $"{l.Buddy}"),
            ("NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)", l.Offline is { } offline ? $"{offline}" : null),
            ("NUMBER(PAGE_UNACCEPTED_MAPCOUNT_VALUE)", l.Unaccepted is { } unaccepted ? $"{unaccepted}" : null),
            ("NUMBER(phys_base)", $"{l.PhysicalBase}"),
            ("SYMBOL(init_top_pgt)", Hex(GuestKernel.KernelMap + TopOffset)),
            ("NUMBER(pgtable_l5_enabled)", l.Levels == 5 ? "1" : "0"),
            ("NUMBER(KERNEL_IMAGE_SIZE)", "1073741824"),
            ("NUMBER(sme_mask)", "0"),
        };
        foreach (var (key, value) in changes)
        {
            lines.RemoveAll(line => line.Key == key);
            if (value is not null)
            {
                lines.Insert(key == "OSRELEASE" ? 0 : lines.Count, (key, value));
            }
        }

        return string.Concat(lines.Where(line => line.Value is not null).Select(line => $"{line.Key}={line.Value}\n"));
    }

    public GuestKernel? Find(out string reason) => GuestKernel.TryFind(Ram, Memory, out reason);

    public GuestKernel Find() => Find(out string reason) ?? throw new InvalidOperationException(reason);

    /// <summary>Has the kernel point to a page, at a place in its data (0 to 0xffff): as its <c>vmcoreinfo_data</c> does.</summary>
    public void PointTo(ulong page, ulong place = 0) => Write(ImagePhysical(DataOffset) + place, BitConverter.GetBytes(_direct + page));

    public void SetFree(ulong frame, int order)
    {
        SetType(frame, (uint)Layout.Buddy);
        Write(StructPage(frame) + (ulong)Layout.PrivateOffset, BitConverter.GetBytes((ulong)order));
    }

    public void SetType(ulong frame, uint type) => Write(StructPage(frame) + (ulong)Layout.MapcountOffset, BitConverter.GetBytes(type));

    public bool IsFree(ulong frame) => (uint)ReadWord(StructPage(frame) + (ulong)Layout.MapcountOffset) == (uint)Layout.Buddy;

    /// <summary>Guest-physical address of a frame's struct page (one that lies in one piece).</summary>
    public ulong StructPage(ulong frame)
    {
        ulong section = frame >> (Layout.SectionBits - 12);
        ulong inSection = frame - (section << (Layout.SectionBits - 12));
        return _memMaps[section] + (inSection * (ulong)Layout.PageSize);
    }

    public long PageOf(ulong frame) => Ram.TryPageOf(new(frame << 12), out long page) ? page : throw new ArgumentOutOfRangeException(nameof(frame));

    public void Write(ulong physical, ReadOnlySpan<byte> bytes)
    {
        if (!Memory.TryLocate(new(physical), out var block, out long offset, out ulong contiguous) || contiguous < (ulong)bytes.Length)
        {
            throw new ArgumentOutOfRangeException(nameof(physical));
        }

        fixed (byte* source = bytes)
        {
            if (SparseFile.Write(block.File, source, (nuint)bytes.Length, offset) != bytes.Length)
            {
                throw new IOException("write");
            }
        }
    }

    public ulong ReadWord(ulong physical) => Memory.TryRead(new GuestPhysicalAddress(physical), out ulong value) ? value : throw new IOException("read");

    public void PunchHole(ulong physical, long bytes)
    {
        if (!Memory.TryLocate(new(physical), out var block, out long offset, out _) || SparseFile.PunchHole(block.File, offset, bytes) != 0)
        {
            throw new IOException("punch");
        }
    }

    /// <summary>A fresh piece of physical memory, zeros, aligned to its size (a power of two).</summary>
    public ulong Allocate(ulong bytes)
    {
        _next = (_next + bytes - 1) & ~(bytes - 1);
        ulong at = _next;
        _next += bytes;
        return at;
    }

    public void Map(ulong address, ulong physical, int leafLevel)
    {
        ulong table = Root;
        for (int level = Layout.Levels; ; level--)
        {
            ulong entryAt = table + (((address >> (12 + (9 * (level - 1)))) & 511) * 8);
            if (level == leafLevel)
            {
                Write(entryAt, BitConverter.GetBytes(physical | 0x8000_0000_0000_0063 | (level > 1 ? 0x80UL : 0)));
                return;
            }

            ulong entry = ReadWord(entryAt);
            if (entry == 0)
            {
                entry = Allocate(4096) | 0x63;
                Write(entryAt, BitConverter.GetBytes(entry));
            }

            table = entry & 0x000f_ffff_ffff_f000;
        }
    }

    public void Dispose() => Ram.Dispose();

    private ulong SectionArrayLength
    {
        get
        {
            ulong sections = 1UL << (Layout.PhysicalBits - Layout.SectionBits);
            return Layout.Flat ? sections : sections / (4096 / (ulong)Layout.SectionSize);
        }
    }

    private static string Hex(ulong value) => value.ToString("x", CultureInfo.InvariantCulture);

    private ulong ImagePhysical(ulong offset) => offset + (ulong)Layout.PhysicalBase;

    private void MakeSections()
    {
        ulong entryBytes = Layout.Flat ? (ulong)Layout.SectionSize : 8;
        ulong array = Allocate(ulong.Max(4096, System.Numerics.BitOperations.RoundUpToPowerOf2(SectionArrayLength * entryBytes)));
        SectionArray = _direct + array;
        ulong perRoot = 4096 / (ulong)Layout.SectionSize;
        var roots = new Dictionary<ulong, ulong>();
        foreach (var segment in Ram.Segments)
        {
            for (ulong section = segment.Start >> Layout.SectionBits; section << Layout.SectionBits < segment.Start + segment.Bytes; section++)
            {
                ulong entryAt;
                if (Layout.Flat)
                {
                    entryAt = array + (section * (ulong)Layout.SectionSize);
                }
                else
                {
                    ulong root = section / perRoot;
                    if (!roots.TryGetValue(root, out ulong rootPage))
                    {
                        roots[root] = rootPage = Allocate(4096);
                        SectionRoots.Add(rootPage);
                        Write(array + (root * 8), BitConverter.GetBytes(_direct + rootPage));
                    }

                    entryAt = rootPage + (section % perRoot * (ulong)Layout.SectionSize);
                }

                Write(entryAt, BitConverter.GetBytes(_vmemmap | 7 | Layout.SectionFlags));
                MakeStructPages(section);
            }
        }
    }

    private void MakeStructPages(ulong section)
    {
        ulong frames = 1UL << (Layout.SectionBits - 12);
        ulong bytes = frames * (ulong)Layout.PageSize;
        ulong leaf = Layout.LargeLeaves ? 2UL << 20 : 4096;
        ulong at = Allocate(leaf);
        _next = at + ((bytes + leaf - 1) & ~(leaf - 1));
        _memMaps[section] = at;
        ulong address = _vmemmap + (section * bytes);
        if (address % leaf != 0)
        {
            throw new InvalidOperationException("Choose a layout whose sections begin at a leaf.");
        }

        byte[] content = new byte[bytes];
        for (ulong i = 0; i < frames; i++)
        {
            BitConverter.TryWriteBytes(content.AsSpan((int)i * Layout.PageSize + Layout.MapcountOffset), uint.MaxValue);
        }

        Write(at, content);
        for (ulong done = 0; done < bytes; done += leaf)
        {
            Map(address + done, at + done, Layout.LargeLeaves ? 2 : 1);
        }
    }
}
