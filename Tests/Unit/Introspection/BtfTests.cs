using System.Text;
using FCtrans.Agent.Introspection;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

public sealed class BtfTests
{
    private const int Int = 1;
    private const int Array = 3;
    private const int Struct = 4;
    private const int Union = 5;
    private const int Typedef = 8;

    [Fact]
    public void Members_are_found_also_in_what_has_no_name()
    {
        Assert.True(Btf.TryParse(Kernel().Build(), out var btf));
        Assert.True(btf.TrySize("page", out int bytes));
        Assert.Equal(64, bytes);
        Assert.True(btf.TryMember("page", "flags", out int offset, out int length, out _));
        Assert.Equal((0, 0), (offset, length));
        // In a struct in a union in a typedef of it.
        Assert.True(btf.TryMember("page", "lru", out offset, out _, out _));
        Assert.Equal(8, offset);
        Assert.True(btf.TryMember("page", "private", out offset, out _, out _));
        Assert.Equal(24, offset);
        Assert.True(btf.TryMember("per_cpu_pages", "lists", out offset, out length, out int elementBytes));
        Assert.Equal((24, 13, 16), (offset, length, elementBytes));
        Assert.False(btf.TryMember("page", "absent", out _, out _, out _));
        Assert.False(btf.TryMember("absent", "flags", out _, out _, out _));
        // A bit field has no address; a prefix is no name.
        Assert.False(btf.TryMember("bits", "field", out _, out _, out _));
        Assert.False(btf.TryMember("page", "flag", out _, out _, out _));
    }

    [Fact]
    public void Enumerators_have_their_values_unless_two_enumerations_disagree()
    {
        var writer = Kernel();
        Assert.True(Btf.TryParse(writer.Build(), out var btf));
        Assert.True(btf.TryEnumerator("pageflags", "PG_active", out int value));
        Assert.Equal(8, value);
        Assert.False(btf.TryEnumerator("pageflags", "PG_act", out _));
        Assert.False(btf.TryEnumerator("page", "PG_active", out _));
        writer.AddEnum("pageflags", ("PG_active", 7));
        Assert.True(Btf.TryParse(writer.Build(), out btf));
        Assert.False(btf.TryEnumerator("pageflags", "PG_active", out _));
        Assert.True(btf.TryEnumerator("pageflags", "PG_lru", out _));
    }

    [Fact]
    public void Two_structs_of_one_name_that_differ_are_not_believed()
    {
        var writer = Kernel();
        writer.Add(Struct, "page", 64, ("flags", 1, 64));
        Assert.True(Btf.TryParse(writer.Build(), out var btf));
        Assert.False(btf.TryMember("page", "flags", out _, out _, out _));
    }

    [Fact]
    public void Types_that_contain_themselves_end()
    {
        var writer = new Writer();
        writer.Add(Struct, "loop", 64, ("", 1, 0), ("", 1, 0), ("", 2, 0), ("", 2, 0));
        writer.Add(Typedef, "", 2);
        writer.Add(Struct, "outside", 64, ("", 0x7fff_ffff, 0), ("far", 1, 0x7fff_ffff));
        Assert.True(Btf.TryParse(writer.Build(), out var btf));
        Assert.False(btf.TryMember("loop", "x", out _, out _, out _));
        Assert.False(btf.TryMember("outside", "far", out _, out _, out _));
    }

    [Fact]
    public void No_damage_makes_it_throw()
    {
        byte[] good = Kernel().Build();
        for (int cut = 0; cut < good.Length; cut++)
        {
            Ask(good[..cut]);
        }

        var random = new Random(4711);
        for (int round = 0; round < 20_000; round++)
        {
            byte[] bad = (byte[])good.Clone();
            for (int change = random.Next(1, 5); change > 0; change--)
            {
                int at = random.Next(bad.Length);
                bad[at] = random.Next(3) == 0 ? (byte)0xff : (byte)random.Next(256);
            }

            Ask(bad);
        }

        static void Ask(byte[] data)
        {
            if (Btf.TryParse(data, out var btf))
            {
                _ = btf.TrySize("page", out _);
                if (btf.TryMember("page", "lru", out int offset, out _, out _))
                {
                    Assert.True(offset >= 0);
                }

                _ = btf.TryMember("per_cpu_pages", "lists", out _, out _, out _);
                _ = btf.TryEnumerator("pageflags", "PG_active", out _);
            }
        }
    }

    internal static Writer Kernel()
    {
        var writer = new Writer();
        writer.Add(Int, "unsigned long", 8, extra: [64]);
        writer.Add(Struct, "list_head", 16, ("next", 1, 0), ("prev", 1, 64));
        writer.Add(Struct, "", 32, ("lru", 2, 0), ("private", 1, 128));
        writer.Add(Union, "", 32, ("", 3, 0), ("other", 1, 0));
        writer.Add(Typedef, "", 4);
        writer.Add(Struct, "page", 64, ("flags", 1, 0), ("", 5, 64));
        writer.Add(Array, "", 0, extra: [2, 1, 13]);
        writer.Add(Struct, "per_cpu_pages", 256, ("count", 1, 32), ("lists", 7, 192));
        writer.Add(Struct | 0x80, "bits", 8, ("field", 1, 0x0300_0008));
        writer.AddEnum("pageflags", ("PG_locked", 0), ("PG_lru", 5), ("PG_active", 8));
        return writer;
    }

    internal sealed class Writer
    {
        private readonly List<byte> _types = [];
        private readonly List<byte> _strings = [0];

        public void Add(int kind, string name, uint size, params (string Name, uint Type, uint Offset)[] members)
        {
            Begin(kind, name, size, members.Length);
            foreach (var member in members)
            {
                Word(String(member.Name));
                Word(member.Type);
                Word(member.Offset);
            }
        }

        public void Add(int kind, string name, uint size, uint[] extra)
        {
            Begin(kind, name, size, 0);
            foreach (uint word in extra)
            {
                Word(word);
            }
        }

        public void AddEnum(string name, params (string Name, uint Value)[] enumerators)
        {
            Begin(6, name, 4, enumerators.Length);
            foreach (var enumerator in enumerators)
            {
                Word(String(enumerator.Name));
                Word(enumerator.Value);
            }
        }

        public byte[] Build()
        {
            uint[] header = [0x0001_eb9f, 24, 0, (uint)_types.Count, (uint)_types.Count, (uint)_strings.Count];
            return [.. header.SelectMany(BitConverter.GetBytes), .. _types, .. _strings];
        }

        private void Begin(int kind, string name, uint size, int members)
        {
            Word(String(name));
            Word(((uint)kind << 24) | (uint)members);
            Word(size);
        }

        private void Word(uint value) => _types.AddRange(BitConverter.GetBytes(value));

        private uint String(string text)
        {
            if (text.Length == 0)
            {
                return 0;
            }

            uint at = (uint)_strings.Count;
            _strings.AddRange(Encoding.ASCII.GetBytes(text + "\0"));
            return at;
        }
    }
}
