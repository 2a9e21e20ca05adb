using System.Text;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

/// <summary>Each of the guest's structures that is read, damaged: no content may crash, hang, or lead out of the guest's RAM. See <see cref="Fuzz"/>.</summary>
public sealed class IntrospectionFuzzTests
{
    private const int Rounds = 150;

    private static readonly SyntheticLayout s_small = new() { LowBytes = 96 << 20, HighBytes = 64 << 20, SectionBits = 24, LargeLeaves = false };

    [Theory]
    [MemberData(nameof(Fuzz.Corpus), "vmcoreinfo", MemberType = typeof(Fuzz))]
    public void Kept_texts_are_survived(string name)
    {
        using var guest = new DamagedGuest();
        Fuzz.Survive(guest.Text, Fuzz.Read(name), name);
    }

    [Fact]
    public void Damaged_texts_are_survived()
    {
        using var guest = new DamagedGuest();
        var samples = Directory.GetFiles(Path.Combine(AppContext.BaseDirectory, "Introspection", "Samples"), "vmcoreinfo-*.txt").Select(File.ReadAllBytes);
        Fuzz.Run("vmcoreinfo", Rounds, [guest.SoundText, .. samples], guest.Text);
    }

    [Theory]
    [MemberData(nameof(Fuzz.Corpus), "tables", MemberType = typeof(Fuzz))]
    public void Kept_page_tables_are_survived(string name)
    {
        using var guest = new DamagedGuest();
        Fuzz.Survive(guest.Tables, Fuzz.Read(name), name);
    }

    [Fact]
    public void Damaged_page_tables_are_survived()
    {
        using var guest = new DamagedGuest();
        Fuzz.Run("tables", Rounds, [[], new byte[24]], guest.Tables);
    }

    [Theory]
    [MemberData(nameof(Fuzz.Corpus), "sections", MemberType = typeof(Fuzz))]
    public void Kept_sections_are_survived(string name)
    {
        using var guest = new DamagedGuest();
        Fuzz.Survive(guest.Sections, Fuzz.Read(name), name);
    }

    [Fact]
    public void Damaged_sections_are_survived()
    {
        using var guest = new DamagedGuest();
        Fuzz.Run("sections", Rounds, [[], new byte[24]], guest.Sections);
    }

    [Theory]
    [MemberData(nameof(Fuzz.Corpus), "btf", MemberType = typeof(Fuzz))]
    public void Kept_types_are_survived(string name) => Fuzz.Survive(Types, Fuzz.Read(name), name);

    [Fact]
    public void Damaged_types_are_survived() => Fuzz.Run("btf", 20 * Rounds, [BtfTests.Kernel().Build()], Types);

    private static string Types(byte[] data)
    {
        if (!Btf.TryParse(data, out var btf))
        {
            return "refused";
        }

        var came = new StringBuilder();
        foreach (var (type, member) in new[] { ("page", "flags"), ("page", "lru"), ("page", "private"), ("per_cpu_pages", "lists"), ("bits", "field") })
        {
            bool found = btf.TryMember(type, member, out int offset, out int length, out int elementBytes);
            bool sized = btf.TrySize(type, out int size);
            Assert.True(!found || (sized && offset >= 0 && offset < size && length >= 0 && elementBytes >= 0), $"{type}.{member} at {offset} of {size}");
            came.Append(found ? 'y' : 'n').Append(sized ? 'y' : 'n').Append(length > 0 ? 'a' : ' ');
        }

        return came.Append(btf.TryEnumerator("pageflags", "PG_active", out _)).ToString();
    }

    /// <summary>
    /// A guest that is sound but for one input. An input for its page tables or sections is a list of 12-byte patches: which page, which
    /// word of it, and the word.
    /// </summary>
    private sealed class DamagedGuest : IDisposable
    {
        private const int PatchBytes = 12;

        private readonly SyntheticGuest _guest = new(s_small, withInfo: false);
        private readonly List<ulong> _tables = [];
        private readonly List<ulong> _structures = [];
        private readonly GuestProcessor _processor;

        public DamagedGuest()
        {
            SoundText = Encoding.ASCII.GetBytes(_guest.InfoText());
            _guest.Write(_guest.InfoPage, SoundText);
            _guest.PointTo(_guest.InfoPage);
            for (int order = 0; order <= 10; order++)
            {
                _guest.SetFree(0x5000 + (4 * (ulong)order), 0);
                _guest.SetFree((SyntheticGuest.HighStart >> 12) + (1024UL * (ulong)order), order);
            }

            _processor = new(0x8000_0000, _guest.Root, 0x20, 0x500);
            AddTables(_guest.Root, s_small.Levels);
            _structures.AddRange(_guest.SectionRoots);
            if (_guest.Find().PageTables.TryTranslate(new(_guest.SectionArray), out var array))
            {
                _structures.Add(array.Value & ~0xfffUL);
            }

            foreach (ulong frame in new ulong[] { 0, 0x5000, _guest.InfoPage >> 12, SyntheticGuest.HighStart >> 12, (SyntheticGuest.HighStart >> 12) + 10240 })
            {
                _structures.Add(_guest.StructPage(frame) & ~0xfffUL);
            }
        }

        public byte[] SoundText { get; }

        public string Text(byte[] text)
        {
            byte[] page = new byte[4096];
            text.AsSpan(0, Math.Min(text.Length, page.Length)).CopyTo(page);
            _guest.Write(_guest.InfoPage, page);
            return Look();
        }

        public string Tables(byte[] patches) => Patched(patches, _tables);

        public string Sections(byte[] patches) => Patched(patches, _structures);

        public void Dispose() => _guest.Dispose();

        private string Patched(byte[] patches, List<ulong> pages)
        {
            var before = new Stack<(ulong At, ulong Word)>();
            for (int at = 0; at + PatchBytes <= patches.Length && before.Count < 256; at += PatchBytes)
            {
                ulong place = pages[BitConverter.ToUInt16(patches, at) % pages.Count] + ((ulong)BitConverter.ToUInt16(patches, at + 2) % 512 * 8);
                before.Push((place, _guest.ReadWord(place)));
                _guest.Write(place, BitConverter.GetBytes(BitConverter.ToUInt64(patches, at + 4)));
            }

            try
            {
                return Look();
            }
            finally
            {
                foreach (var (at, word) in before)
                {
                    _guest.Write(at, BitConverter.GetBytes(word));
                }
            }
        }

        /// <summary>All that is done with a guest's structures.</summary>
        private string Look()
        {
            using var unused = new PageBitmap(_guest.Ram.PageCount);
            using var kernelPages = new PageBitmap(_guest.Ram.PageCount);
            using var pages = UnusedPages.Open(_guest.Ram, mayMap: false, () => [_processor]);
            var figures = pages.Refresh(unused);
            Assert.Equal(unused.Count(), figures.Total - figures.Used);
            Assert.Equal(figures.Method == UnusedFigures.NeverTouchedOnly, figures.Reason.Length > 0);
            pages.KernelPages(kernelPages, unused);
            int pointed = VmCoreInfoPointers.Find(_guest.Memory, [_processor]).Count;
            string symbols = "";
            if (GuestKernel.TryOpen(_guest.Memory, new(_guest.InfoPage), out _) is { } kernel)
            {
                _ = KernelSymbols.TryRead(kernel, KernelSymbols.Wanted, out symbols);
                _ = PagePoisoning.CommandLine(kernel);
                _ = kernel.IsStillThere(out _);
            }

            static string Few(long count) => count switch { 0 => "none", < 1000 => "some", < 3000 => "many", _ => "most" };
            return $"{figures.Reason}|{Few(figures.Free)}|{Few(figures.Ballooned)}|{pointed > 0}|{Few(kernelPages.Count())}|{symbols}";
        }

        private void AddTables(ulong table, int level)
        {
            _tables.Add(table);
            for (int i = 0; level > 1 && i < 512; i++)
            {
                ulong entry = _guest.ReadWord(table + ((ulong)i * 8));
                ulong next = entry & 0x000f_ffff_ffff_f000;
                if ((entry & 1) != 0 && (entry & 0x80) == 0 && _guest.Ram.TryPageOf(new GuestPhysicalAddress(next), out _) && !_tables.Contains(next))
                {
                    AddTables(next, level - 1);
                }
            }
        }
    }
}
