using System.Diagnostics;
using System.Globalization;
using System.Text;
using FCtrans.Agent.Introspection;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

/// <summary>The kernel's own symbol table, whole and damaged. The files in Corpus are tables that once came to something of their own.</summary>
public sealed class KernelSymbolsTests
{
    private const ulong Direct = 0xffff_8880_0000_0000;
    private const ulong Base = 0xffff_ffff_8100_0000;
    private const int NamesAt = 0;
    private const int TokensAt = 1024;
    private const int IndexAt = 2048;
    private const int OffsetsAt = 2560;
    private const int CountAt = 2816;
    private const int BaseAt = 2820;
    private const int TableBytes = 2828;
    private const int Rounds = 3000;

    // A name of 130 tokens: its length takes two bytes.
    private static readonly string s_long = new('x', 129);

    private static readonly (string Name, uint Offset)[] s_symbols =
        [("_stext", 0), ("first", 0x10), (s_long, 0x20), ("__start_BTF", 0x1234), ("__stop_BTF", 0x2345), ("saved_command_line", 0x7fff_0000)];

    public static TheoryData<string> Corpus => Fuzz.Corpus("kallsyms");

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Symbols_come_out_at_their_addresses(bool perCpuAbsolutes)
    {
        using var host = new Host();
        var symbols = host.Read(Table(perCpuAbsolutes), out string reason);
        Assert.True(symbols is not null, reason);
        foreach (var (name, offset) in s_symbols)
        {
            Assert.True(symbols.TryGet(name, out var address), name);
            Assert.Equal(Base + offset, address.Value);
        }

        Assert.False(symbols.TryGet("absent", out _));
    }

    [Fact]
    public void A_table_that_does_not_fit_VMCOREINFO_is_refused()
    {
        using var host = new Host();
        byte[] table = Table(perCpuAbsolutes: false);
        BitConverter.TryWriteBytes(table.AsSpan(BaseAt), Base + 0x20_0000);
        Assert.Null(host.Read(table, out string reason));
        Assert.Contains("fit", reason, StringComparison.Ordinal);
    }

    [Fact]
    public void More_symbols_than_any_kernel_has_are_refused()
    {
        using var host = new Host();
        byte[] table = Table(perCpuAbsolutes: false);
        BitConverter.TryWriteBytes(table.AsSpan(CountAt), uint.MaxValue);
        Assert.Null(host.Read(table, out string reason));
        Assert.Contains("no sense", reason, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Corpus))]
    public void Kept_tables_are_survived(string file)
    {
        using var host = new Host();
        Survive(host, Fuzz.Read(file), file);
    }

    [Fact]
    public void Random_damages_are_survived()
    {
        // A new part of the space in each run; the seed is in the message of what fails.
        int first = Environment.TickCount & 0xffffff;
        var outcomes = new HashSet<string>(StringComparer.Ordinal);
        using var host = new Host();
        foreach (string name in Fuzz.Names("kallsyms"))
        {
            outcomes.Add(Survive(host, Fuzz.Read(name), name));
        }

        foreach (int round in Fuzz.Rounds(Rounds))
        {
            byte[] table = Damaged(first + round);
            if (outcomes.Add(Survive(host, table, $"Seed {first + round}")))
            {
                Fuzz.Keep("kallsyms", table);
            }
        }
    }

    /// <returns>What it came to: the reason, or how many symbols were found.</returns>
    private static string Survive(Host host, byte[] table, string name)
    {
        var watch = Stopwatch.StartNew();
        try
        {
            var symbols = host.Read(table, out string reason);
            Assert.Equal(symbols is null, reason.Length > 0);
            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(10), $"It took {watch.Elapsed}.");
            if (symbols is null)
            {
                return reason;
            }

            // Believed at all, it has the one symbol whose address is known from elsewhere, at that address.
            Assert.True(symbols.TryGet("_stext", out var stext));
            Assert.Equal(Base, stext.Value);
            return string.Join(' ', s_symbols.Select(symbol => symbols.TryGet(symbol.Name, out _)));
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"{name}: {e.Message}", e);
        }
    }

    private static byte[] Damaged(int seed)
    {
        var random = new Random(seed);
        byte[] table = Table(random.Next(2) == 0);
        for (int i = random.Next(1, 8); i > 0; i--)
        {
            int at = random.Next(4) switch
            {
                0 => random.Next(512),
                1 => TokensAt + random.Next(512),
                2 => IndexAt + random.Next(512),
                _ => OffsetsAt + random.Next(TableBytes - OffsetsAt),
            };
            table[at] = random.Next(4) switch
            {
                0 => 0xff,
                1 => 0,
                2 => (byte)(table[at] ^ (1 << random.Next(8))),
                _ => (byte)random.Next(256),
            };
        }

        return table;
    }

    private static byte[] Table(bool perCpuAbsolutes)
    {
        byte[] table = new byte[TableBytes];
        int tokens = TokensAt;
        for (int i = 0; i < 256; i++)
        {
            // Each ASCII character is its own token, and one token is a word.
            string text = i == 1 ? "BTF" : i is > 32 and < 127 ? $"{(char)i}" : "";
            BitConverter.TryWriteBytes(table.AsSpan(IndexAt + (i * 2)), (ushort)(tokens - TokensAt));
            tokens += Encoding.ASCII.GetBytes(text, table.AsSpan(tokens)) + 1;
        }

        int at = NamesAt;
        for (int i = 0; i < s_symbols.Length; i++)
        {
            byte[] name = Encoding.ASCII.GetBytes("T" + s_symbols[i].Name.Replace("BTF", "\u0001", StringComparison.Ordinal));
            if (name.Length > 0x7f)
            {
                table[at++] = (byte)(0x80 | (name.Length & 0x7f));
                table[at++] = (byte)(name.Length >> 7);
            }
            else
            {
                table[at++] = (byte)name.Length;
            }

            name.CopyTo(table, at);
            at += name.Length;
            int offset = perCpuAbsolutes ? -1 - (int)s_symbols[i].Offset : (int)s_symbols[i].Offset;
            BitConverter.TryWriteBytes(table.AsSpan(OffsetsAt + (i * 4)), offset);
        }

        BitConverter.TryWriteBytes(table.AsSpan(CountAt), s_symbols.Length);
        BitConverter.TryWriteBytes(table.AsSpan(BaseAt), Base);
        return table;
    }

    /// <summary>A guest whose symbol table can be replaced.</summary>
    private sealed class Host : IDisposable
    {
        private readonly SyntheticGuest _guest = new(
            new() { LowBytes = 96 << 20, HighBytes = 0, SectionBits = 24, LargeLeaves = false }, withInfo: false);

        private readonly ulong _at;

        public Host()
        {
            _at = _guest.Allocate(4096);
            (string, string?) Symbol(string name, ulong address) => ($"SYMBOL({name})", address.ToString("x", CultureInfo.InvariantCulture));
            _guest.Write(_guest.InfoPage, Encoding.ASCII.GetBytes(_guest.InfoText(
                Symbol("_stext", Base),
                Symbol("kallsyms_names", Direct + _at + NamesAt),
                Symbol("kallsyms_token_table", Direct + _at + TokensAt),
                Symbol("kallsyms_token_index", Direct + _at + IndexAt),
                Symbol("kallsyms_offsets", Direct + _at + OffsetsAt),
                Symbol("kallsyms_num_syms", Direct + _at + CountAt),
                Symbol("kallsyms_relative_base", Direct + _at + BaseAt))));
        }

        public KernelSymbols? Read(byte[] table, out string reason)
        {
            _guest.Write(_at, table);
            var kernel = GuestKernel.TryOpen(_guest.Memory, new(_guest.InfoPage), out reason)
                ?? throw new InvalidOperationException(reason);
            return KernelSymbols.TryRead(kernel, [.. s_symbols.Select(symbol => symbol.Name)], out reason);
        }

        public void Dispose() => _guest.Dispose();
    }
}
