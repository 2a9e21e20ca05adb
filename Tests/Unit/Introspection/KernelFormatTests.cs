using System.Globalization;
using System.Text;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

/// <summary>
/// The VMCOREINFO of each long-lived kernel since 4.18, as it writes it: those of 5.10 and 6.12 were recorded from Debian's (the latter's
/// flavour for all machines), the others are these with the lines that kernel/crash_core.c, kernel/vmcore_info.c and arch/x86 of those
/// releases have and lack. Only the addresses are those of the guest made here.
/// </summary>
public sealed class KernelFormatTests
{
    private const ulong High = SyntheticGuest.HighStart >> 12;

    /// <summary>Where things are in a guest, which the guest made here knows better.</summary>
    private static readonly string[] s_addresses =
        ["SYMBOL(init_uts_ns)", "SYMBOL(swapper_pg_dir)", "SYMBOL(mem_section)", "NUMBER(phys_base)", "SYMBOL(init_top_pgt)"];

    public static TheoryData<string, int> Releases
    {
        get
        {
            var releases = new TheoryData<string, int>();
            foreach (string release in new[] { "4.18", "5.4", "5.10", "5.15", "6.1", "6.6", "6.12", "6.18" })
            {
                releases.Add(release, 4);
                releases.Add(release, 5);
            }

            return releases;
        }
    }

    [Theory]
    [MemberData(nameof(Releases))]
    public void Exactly_the_free_pages_of_each_release_are_found(string release, int levels)
    {
        var said = Said(release, levels);
        using var guest = Make(said, levels);
        var kernel = guest.Find(out string reason);
        Assert.True(kernel is not null, reason);
        Assert.Equal(said["OSRELEASE"], kernel.Release);
        Assert.Equal(27, kernel.Sections.SectionBits);
        Assert.Equal(11, kernel.Pages.Orders);

        long expected = 0;
        for (int order = 0; order <= 10; order++)
        {
            guest.SetFree(High + 4096 + (2048UL * (ulong)order), order);
            expected += 1L << order;
        }

        // Orders are bounded by the release's own; what is a type, but not this one to the last bit, is in use.
        guest.SetFree(0x8000, 11);
        foreach (uint almost in new uint[] { 1, 0x80, 0x0100_0000, 0x4000_0000 })
        {
            guest.SetType(0x9000 + (almost & 0xfff), (uint)guest.Layout.Buddy ^ almost);
        }

        bool ballooned = said.ContainsKey("NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)");
        guest.SetType(0xa000, (uint)(guest.Layout.Offline ?? -257));
        using var scanner = new FreePageScanner(kernel, guest.Ram, mayMap: false);
        using var unused = new PageBitmap(guest.Ram.PageCount);
        var result = scanner.Scan(unused);
        Assert.Equal(expected, result.BuddyPages);
        Assert.Equal(ballooned ? 1 : 0, result.BallooningPages);
        Assert.Equal(expected + result.BallooningPages, unused.Count());
        Assert.True(unused[guest.PageOf(High + 4096)]);
        Assert.False(unused[guest.PageOf(0x8000)]);
    }

    [Fact]
    public void A_section_array_that_does_not_fit_what_a_release_leaves_unsaid_is_refused()
    {
        var said = Said("5.4", 4);
        Assert.False(said.ContainsKey("NUMBER(SECTION_SIZE_BITS)"));
        said["LENGTH(mem_section)"] = "4096";
        using var guest = Make(said, 4);
        Assert.Null(guest.Find(out string reason));
        Assert.Contains("LENGTH(mem_section)", reason, StringComparison.Ordinal);
    }

    private static Dictionary<string, string> Said(string release, int levels)
    {
        var said = File.ReadLines(Path.Combine(AppContext.BaseDirectory, "Introspection", "Samples", $"vmcoreinfo-{release}.txt"))
            .Select(line => line.Split('=', 2)).ToDictionary(parts => parts[0], parts => parts[1]);
        if (levels == 5)
        {
            // What these kernels decide as they boot on a processor with five levels.
            said["NUMBER(pgtable_l5_enabled)"] = "1";
            said["LENGTH(mem_section)"] = ((1 << (52 - 27)) / (4096 / Number(said, "SIZE(mem_section)"))).ToString(CultureInfo.InvariantCulture);
            if (said.ContainsKey("NUMBER(MAX_PHYSMEM_BITS)"))
            {
                said["NUMBER(MAX_PHYSMEM_BITS)"] = "52";
            }
        }

        return said;
    }

    private static SyntheticGuest Make(Dictionary<string, string> said, int levels)
    {
        var guest = new SyntheticGuest(
            new()
            {
                Release = said["OSRELEASE"],
                Levels = levels,
                PhysicalBits = levels == 5 ? 52 : 46,
                SectionSize = Number(said, "SIZE(mem_section)"),
                Buddy = Number(said, "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)"),
                Offline = said.ContainsKey("NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)") ? Number(said, "NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)") : null,
                // Before 5.11 a count of references comes first.
                NameOffset = said.ContainsKey("OFFSET(uts_namespace.name)") ? Number(said, "OFFSET(uts_namespace.name)") : 4,
                SectionFlags = 0x18,
            },
            withInfo: false);
        foreach (string line in guest.InfoText().Split('\n'))
        {
            string key = line.Split('=')[0];
            if (s_addresses.Contains(key))
            {
                said[key] = line[(key.Length + 1)..];
            }
        }

        guest.Write(guest.InfoPage, Encoding.ASCII.GetBytes(string.Concat(said.Select(pair => $"{pair.Key}={pair.Value}\n"))));
        return guest;
    }

    private static int Number(Dictionary<string, string> said, string key) => int.Parse(said[key], CultureInfo.InvariantCulture);
}
