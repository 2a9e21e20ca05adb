using System.Diagnostics;
using System.Text;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

/// <summary>
/// No content of guest memory may crash, hang or make the agent read outside the guest's RAM. Each seed names one damaged
/// guest; the seeds in <see cref="Corpus"/> are kept because each reached something of its own or once found a fault.
/// </summary>
public sealed class HostileGuestTests
{
    private const int Seeds = 120;

    /// <summary>Time that a look at a guest of 160 MiB may take, however it is damaged. A sound one takes about a millisecond.</summary>
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(10);

    private static readonly ulong[] s_words =
    [
        0, 1, 7, 0x63, 0xe3, 0x80, 0xfff, 0x1000, 0x7fff_ffff, 0xffff_ff7f, 0xffff_ffff_8000_0000, 0xffff_8880_0000_0000, 0xffff_ea00_0000_0000,
        0x000f_ffff_ffff_f0e3, 0x000f_ffff_ffff_f063, 0x8000_0000_0000_0000, ulong.MaxValue, ulong.MaxValue - 0xfff, 0x1_0000_0063,
    ];

    private static readonly SyntheticLayout s_small = new()
    {
        LowBytes = 96 << 20, HighBytes = 64 << 20, SectionBits = 24, LargeLeaves = false,
    };

    public static TheoryData<int> Corpus => [3, 17, 71, 113, 262, 307, 5011, 90210];

    [Theory]
    [MemberData(nameof(Corpus))]
    public void Kept_damages_are_survived(int seed) => Survive(seed);

    [Fact]
    public void Random_damages_are_survived()
    {
        // A new part of the space in each run; the seed is in the message of what fails.
        int first = Environment.TickCount & 0xffffff;
        for (int seed = first; seed < first + Seeds; seed++)
        {
            Survive(seed);
        }
    }

    [Fact]
    public void Page_tables_that_point_at_themselves_end()
    {
        using var guest = new SyntheticGuest(s_small);
        byte[] self = new byte[4096];
        for (int i = 0; i < 512; i++)
        {
            BitConverter.TryWriteBytes(self.AsSpan(i * 8), guest.Root | 0x63);
        }

        var kernel = guest.Find();
        // Only the upper half: the top table is in the image and the image has to be found for a kernel at all.
        guest.Write(guest.Root + 2048, self.AsSpan(2048, 2048));
        using var bitmap = new PageBitmap(guest.Ram.PageCount);
        using var scanner = new FreePageScanner(kernel, guest.Ram, mayMap: false);
        _ = scanner.Scan(bitmap);
        Assert.Equal(0, bitmap.Count());
        var watch = Stopwatch.StartNew();
        KernelPageSet.AddTo(kernel, guest.Ram, bitmap);
        Assert.True(watch.Elapsed < s_limit, $"{watch.Elapsed}");
    }

    private static void Survive(int seed)
    {
        using var guest = Damaged(seed);
        var watch = Stopwatch.StartNew();
        try
        {
            using var unused = new PageBitmap(guest.Ram.PageCount);
            using var kernelPages = new PageBitmap(guest.Ram.PageCount);
            foreach (bool mayMap in new[] { false, true })
            {
                using var pages = UnusedPages.Open(guest.Ram, mayMap, () => [new(0x8000_0000, guest.Root, 0, 0xd01)]);
                var figures = pages.Refresh(unused);
                Assert.Equal(unused.Count(), figures.Total - figures.Used);
                Assert.True(figures.Reason.Length > 0 == (figures.Method == UnusedFigures.NeverTouchedOnly));
                pages.KernelPages(kernelPages, unused);
            }

            if (GuestKernel.TryOpen(guest.Memory, new(guest.InfoPage), out _) is { } kernel)
            {
                _ = KernelSymbols.TryRead(kernel, ["saved_command_line"], out _);
                _ = PagePoisoning.CommandLine(kernel);
            }
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"Seed {seed}: {e.Message}", e);
        }

        Assert.True(watch.Elapsed < s_limit, $"Seed {seed} took {watch.Elapsed}.");
    }

    /// <summary>A guest with some words of what is read overwritten: VMCOREINFO, page tables, sections, struct pages, symbols.</summary>
    private static SyntheticGuest Damaged(int seed)
    {
        var random = new Random(seed);
        var guest = new SyntheticGuest(s_small, withInfo: false);
        ulong symbols = 0xffff_8880_0000_0000 + guest.Allocate(65536);
        var changes = new List<(string, string?)>();
        foreach (string name in new[] { "names", "num_syms", "token_table", "token_index", "offsets", "relative_base" })
        {
            changes.Add(($"SYMBOL(kallsyms_{name})", (symbols + (ulong)random.Next(65536)).ToString("x", null)));
        }

        byte[] noise = new byte[65536];
        random.NextBytes(noise);
        if (random.Next(2) == 0)
        {
            Array.Clear(noise, 0, random.Next(noise.Length));
        }

        guest.Write(symbols - 0xffff_8880_0000_0000, noise);
        byte[] info = Encoding.ASCII.GetBytes(guest.InfoText([.. changes]));
        if (random.Next(3) == 0)
        {
            for (int i = random.Next(1, 6); i > 0; i--)
            {
                info[random.Next(info.Length)] = random.Next(2) == 0 ? (byte)random.Next(256) : (byte)('0' + random.Next(10));
            }
        }

        guest.Write(guest.InfoPage, info);
        for (int i = 0; i < 40; i++)
        {
            guest.SetFree((ulong)random.Next(24 * 1024), random.Next(12));
        }

        // The tables lie one after the other from the first that was allocated on.
        ulong structures = guest.InfoPage - 0x100_0000;
        for (int i = random.Next(60); i > 0; i--)
        {
            ulong at = random.Next(5) switch
            {
                0 => guest.Root + ((ulong)random.Next(512) * 8),
                1 => guest.SectionRoots[random.Next(guest.SectionRoots.Count)] + ((ulong)random.Next(512) * 8),
                2 => guest.StructPage((ulong)random.Next(24 * 1024)) + ((ulong)random.Next(8) * 8),
                3 => (0x140_0000UL + (ulong)random.Next(0x8_0000)) & ~7UL,
                _ => (structures + (ulong)random.Next(0x100_0000)) & ~7UL,
            };
            ulong word = s_words[random.Next(s_words.Length)];
            if (random.Next(3) == 0)
            {
                word = (ulong)random.NextInt64() & (ulong)random.NextInt64();
            }
            else if (random.Next(3) == 0)
            {
                word = guest.ReadWord(at) ^ (1UL << random.Next(64));
            }

            guest.Write(at, BitConverter.GetBytes(word));
        }

        return guest;
    }
}
