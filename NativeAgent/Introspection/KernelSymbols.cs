using System.Text;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// Addresses of a guest kernel's symbols, read from the kernel's own table (kallsyms), which VMCOREINFO names since Linux
/// 6.0. Reads the names in one pass and keeps only those that were asked for.
/// <para>
/// Names are kept as tokens: a length (one byte, or two as ULEB128 since 6.1) and as many one-byte indices into a table of
/// 256 strings; a name's first character is the symbol's type. The addresses are 32-bit offsets: from the relative base, or,
/// where a kernel has per-CPU absolutes (before 6.15), negative ones from the base and the others as they are.
/// (Linux, kernel/kallsyms.c and scripts/kallsyms.c.)
/// </para>
/// </summary>
internal sealed class KernelSymbols
{
    /// <summary>All that any part of FCtrans looks up: one pass over the names finds them all.</summary>
    public static readonly string[] Wanted =
    [
        "__start_BTF", "__stop_BTF", "__per_cpu_offset", "nr_cpu_ids", "node_data", "nr_node_ids", "contig_page_data", "saved_command_line",
        "_totalram_pages", "vm_zone_stat",
    ];

    private const int MaxSymbols = 2_000_000;
    private const int MaxTokens = 16 * 1024;
    private const int MaxName = 512;
    private const int Chunk = 64 * 1024;

    private readonly Dictionary<string, GuestVirtualAddress> _addresses;

    private KernelSymbols(Dictionary<string, GuestVirtualAddress> addresses)
    {
        _addresses = addresses;
    }

    /// <summary>False when the kernel has no such symbol, or it was not asked for.</summary>
    public bool TryGet(string name, out GuestVirtualAddress address) => _addresses.TryGetValue(name, out address);

    /// <param name="kernel">Whose symbols.</param>
    /// <param name="names">Those that are wanted. <c>_stext</c>, when among them, must come out as VMCOREINFO says.</param>
    /// <param name="reason">Why there are none.</param>
    public static KernelSymbols? TryRead(GuestKernel kernel, IReadOnlyCollection<string> names, out string reason)
    {
        var info = kernel.Info;
        if (!info.TrySymbol("kallsyms_names", out ulong namesAt) || !info.TrySymbol("kallsyms_num_syms", out ulong countAt) ||
            !info.TrySymbol("kallsyms_token_table", out ulong tokensAt) || !info.TrySymbol("kallsyms_token_index", out ulong indexAt) ||
            !info.TrySymbol("kallsyms_offsets", out ulong offsetsAt) || !info.TrySymbol("kallsyms_relative_base", out ulong baseAt))
        {
            reason = "VMCOREINFO does not say where the kernel's symbols are (before Linux 6.0)";
            return null;
        }

        var tables = kernel.PageTables;
        if (!tables.TryRead(new(countAt), out uint count) || count is 0 or > MaxSymbols ||
            !tables.TryRead(new(baseAt), out ulong relativeBase) || !TryTokens(tables, tokensAt, indexAt, out byte[][] tokens))
        {
            reason = "the kernel's symbol table makes no sense";
            return null;
        }

        // _stext is the one symbol whose address VMCOREINFO tells as well: it checks the table and tells the kind of offsets.
        var wanted = new Dictionary<string, GuestVirtualAddress>();
        var lookUp = new HashSet<string>(names, StringComparer.Ordinal) { "_stext" }.GetAlternateLookup<ReadOnlySpan<char>>();
        var positions = new Dictionary<string, uint>(StringComparer.Ordinal);
        if (!TryNames(tables, namesAt, count, tokens, lookUp, positions))
        {
            reason = "the kernel's symbol names make no sense";
            return null;
        }

        if (!info.TrySymbol("_stext", out ulong stext) || !positions.TryGetValue("_stext", out uint stextPosition) ||
            !tables.TryRead(new(offsetsAt + (4UL * stextPosition)), out int stextOffset))
        {
            reason = "the kernel's symbols can't be checked: _stext is missing";
            return null;
        }

        bool perCpuAbsolutes = stextOffset < 0 && relativeBase - 1 - (ulong)(long)stextOffset == stext;
        if (!perCpuAbsolutes && relativeBase + (uint)stextOffset != stext)
        {
            reason = "the kernel's symbols do not fit its VMCOREINFO";
            return null;
        }

        foreach (var (name, position) in positions)
        {
            if (tables.TryRead(new(offsetsAt + (4UL * position)), out int offset))
            {
                ulong address = !perCpuAbsolutes ? relativeBase + (uint)offset
                    : offset < 0 ? relativeBase - 1 - (ulong)(long)offset : (ulong)offset;
                wanted[name] = new(address);
            }
        }

        reason = "";
        return new(wanted);
    }

    private static bool TryTokens(GuestPageTables tables, ulong tokensAt, ulong indexAt, out byte[][] tokens)
    {
        tokens = new byte[256][];
        byte[] index = new byte[512];
        byte[] text = new byte[MaxTokens];
        if (!tables.TryRead(new GuestVirtualAddress(indexAt), index))
        {
            return false;
        }

        // Its length is not told: the last token ends it. A page past it may not be there.
        int readable = 0;
        while (readable < text.Length)
        {
            ulong at = tokensAt + (ulong)readable;
            int part = (int)Math.Min((ulong)(text.Length - readable), 4096 - (at & 4095));
            if (!tables.TryRead(new GuestVirtualAddress(at), text.AsSpan(readable, part)))
            {
                break;
            }

            readable += part;
        }

        for (int i = 0; i < 256; i++)
        {
            int start = BitConverter.ToUInt16(index, i * 2);
            int length = start < readable ? text.AsSpan(start, readable - start).IndexOf((byte)0) : -1;
            if (length is < 0 or > 128)
            {
                return false;
            }

            tokens[i] = text.AsSpan(start, length).ToArray();
        }

        return true;
    }

    private static bool TryNames(
        GuestPageTables tables, ulong at, uint count, byte[][] tokens, HashSet<string>.AlternateLookup<ReadOnlySpan<char>> wanted,
        Dictionary<string, uint> positions)
    {
        byte[] buffer = new byte[Chunk];
        int have = 0;
        int used = 0;
        Span<char> name = stackalloc char[MaxName];
        var lengths = new bool[MaxName + 1];
        foreach (string one in wanted.Set)
        {
            lengths[Math.Min(one.Length, MaxName)] = true;
        }

        for (uint symbol = 0; symbol < count && positions.Count < wanted.Set.Count; symbol++)
        {
            // A name has at most 2 + 0x3fff tokens; the kernel's own limit is far below.
            if (have - used < MaxName + 2)
            {
                buffer.AsSpan(used, have - used).CopyTo(buffer);
                have -= used;
                at += (ulong)used;
                used = 0;
                while (have < buffer.Length)
                {
                    ulong from = at + (ulong)have;
                    int part = (int)Math.Min((ulong)(buffer.Length - have), 4096 - (from & 4095));
                    if (!tables.TryRead(new GuestVirtualAddress(from), buffer.AsSpan(have, part)))
                    {
                        break;
                    }

                    have += part;
                }
            }

            if (have - used < 3)
            {
                return false;
            }

            int length = buffer[used++];
            if ((length & 0x80) != 0)
            {
                length = (length & 0x7f) | (buffer[used++] << 7);
            }

            if (length == 0 || length > MaxName || length > have - used)
            {
                return false;
            }

            int characters = 0;
            for (int i = 0; i < length; i++)
            {
                characters += tokens[buffer[used + i]].Length;
            }

            if (characters > MaxName)
            {
                return false;
            }

            // The first character is the type. Most names are told from the wanted ones by their length.
            if (characters > 1 && lengths[characters - 1])
            {
                Spell(buffer.AsSpan(used, length), tokens, name);
                if (wanted.TryGetValue(name[1..characters], out string? found))
                {
                    _ = positions.TryAdd(found, symbol);
                }
            }

            used += length;
        }

        return true;
    }

    private static void Spell(ReadOnlySpan<byte> indices, byte[][] tokens, Span<char> name)
    {
        int at = 0;
        foreach (byte index in indices)
        {
            foreach (byte character in tokens[index])
            {
                name[at++] = (char)character;
            }
        }
    }
}
