using System.Buffers.Binary;
using System.Text;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// The types of a guest's kernel as that kernel keeps them for itself (BTF, the bytes from <c>__start_BTF</c> to
/// <c>__stop_BTF</c>): where the members of a struct lie. Its content is the guest's word, so every offset is checked against
/// the bytes there are, every chain of types has a length after which it is given up, and nonsense makes an answer false.
/// Two structs of one name that differ in what is asked make it false, too.
/// (Linux, Documentation/bpf/btf.rst, include/uapi/linux/btf.h.)
/// </summary>
internal sealed class Btf
{
    /// <summary>That of a distribution's kernel has 4 to 10 MiB.</summary>
    public const int MaxBytes = 64 << 20;

    private const ushort Magic = 0xeb9f;
    private const int HeaderBytes = 24;
    private const int TypeBytes = 12;
    private const int MemberBytes = 12;
    private const int MaxDepth = 16;

    private const int KindArray = 3;
    private const int KindStruct = 4;
    private const int KindUnion = 5;
    private const int KindEnum = 6;
    private const int EnumeratorBytes = 8;

    private readonly byte[] _data;
    private readonly int _strings;
    private readonly int _stringsEnd;

    /// <summary>Where type i + 1 begins.</summary>
    private readonly List<int> _types;

    private Btf(byte[] data, int strings, int stringsEnd, List<int> types)
    {
        _data = data;
        _strings = strings;
        _stringsEnd = stringsEnd;
        _types = types;
    }

    /// <summary>False when the bytes are no BTF of version 1, are cut off, or have a kind of type that is not known.</summary>
    public static bool TryParse(byte[] data, out Btf btf)
    {
        btf = null!;
        if (data.Length is < HeaderBytes or > MaxBytes || BinaryPrimitives.ReadUInt16LittleEndian(data) != Magic || data[2] != 1)
        {
            return false;
        }

        ulong header = Word(data, 4);
        ulong typesAt = header + Word(data, 8);
        ulong typesEnd = typesAt + Word(data, 12);
        ulong stringsAt = header + Word(data, 16);
        ulong stringsEnd = stringsAt + Word(data, 20);
        if (header < HeaderBytes || typesEnd > (ulong)data.Length || stringsEnd > (ulong)data.Length)
        {
            return false;
        }

        var types = new List<int>();
        int at = (int)typesAt;
        int end = (int)typesEnd;
        while (at < end)
        {
            if (end - at < TypeBytes)
            {
                return false;
            }

            uint info = Word(data, at + 4);
            int extra = Extra((int)(info >> 24) & 0x1f, (int)(info & 0xffff));
            if (extra < 0 || extra > end - at - TypeBytes)
            {
                return false;
            }

            types.Add(at);
            at += TypeBytes + extra;
        }

        btf = new(data, (int)stringsAt, (int)stringsEnd, types);
        return true;
    }

    /// <summary>Bytes of a struct.</summary>
    public bool TrySize(string type, out int bytes)
    {
        byte[] name = Encoding.ASCII.GetBytes(type);
        bytes = -1;
        foreach (int at in _types)
        {
            if (Kind(at) == KindStruct && NameIs(at, name))
            {
                uint size = Word(_data, at + 8);
                if (size > int.MaxValue || (bytes >= 0 && bytes != (int)size))
                {
                    return false;
                }

                bytes = (int)size;
            }
        }

        return bytes >= 0;
    }

    /// <summary>Where a member of a struct lies, also one of the unnamed structs and unions within it.</summary>
    /// <param name="type">The struct's name.</param>
    /// <param name="member">The member's name.</param>
    /// <param name="offset">In bytes from the struct's beginning; it lies within the struct's size.</param>
    /// <param name="length">Elements, when the member is an array; else 0.</param>
    /// <param name="elementBytes">Bytes of one element, when that is an array of structs; else 0.</param>
    public bool TryMember(string type, string member, out int offset, out int length, out int elementBytes)
    {
        byte[] name = Encoding.ASCII.GetBytes(type);
        byte[] wanted = Encoding.ASCII.GetBytes(member);
        (int Offset, int Length, int ElementBytes, uint Size)? found = null;
        offset = length = elementBytes = 0;
        foreach (int at in _types)
        {
            if (Kind(at) != KindStruct || !NameIs(at, name))
            {
                continue;
            }

            // As for TrySize: what lies within the struct can be told in 32 bits.
            uint size = Word(_data, at + 8);
            if (size > int.MaxValue)
            {
                return false;
            }

            int budget = 4096;
            if (!TryFind(at, wanted, 0, 0, ref budget, out ulong bits, out uint memberType) || bits % 8 != 0 || bits / 8 >= size)
            {
                return false;
            }

            Array(memberType, out int elements, out int bytes);
            var now = ((int)(bits / 8), elements, bytes, size);
            if (found is { } before && before != now)
            {
                return false;
            }

            found = now;
        }

        (offset, length, elementBytes, _) = found ?? default;
        return found is not null;
    }

    /// <summary>The value of a name in an enumeration of 32 bits; false also when two enumerations of that name disagree.</summary>
    public bool TryEnumerator(string type, string enumerator, out int value)
    {
        byte[] name = Encoding.ASCII.GetBytes(type);
        byte[] wanted = Encoding.ASCII.GetBytes(enumerator);
        int? found = null;
        value = 0;
        foreach (int at in _types)
        {
            if (Kind(at) != KindEnum || !NameIs(at, name))
            {
                continue;
            }

            int count = (int)(Word(_data, at + 4) & 0xffff);
            for (int i = 0; i < count; i++)
            {
                int entry = at + TypeBytes + (i * EnumeratorBytes);
                if (NameIs(entry, wanted))
                {
                    int now = (int)Word(_data, entry + 4);
                    if (found is { } before && before != now)
                    {
                        return false;
                    }

                    found = now;
                }
            }
        }

        value = found ?? 0;
        return found is not null;
    }

    private static uint Word(byte[] data, int at) => BinaryPrimitives.ReadUInt32LittleEndian(data.AsSpan(at, 4));

    /// <summary>Bytes that follow a type of that kind; -1 for a kind that is not known, after which nothing can be read.</summary>
    private static int Extra(int kind, int length) => kind switch
    {
        1 or 14 or 17 => 4,
        KindArray => 12,
        KindStruct or KindUnion or 15 or 19 => length * 12,
        KindEnum or 13 => length * EnumeratorBytes,
        2 or (>= 7 and <= 12) or 16 or 18 => 0,
        _ => -1,
    };

    private int Kind(int at) => (int)(Word(_data, at + 4) >> 24) & 0x1f;

    private bool NameIs(int at, byte[] name)
    {
        ulong start = (ulong)_strings + Word(_data, at);
        return start + (ulong)name.Length < (ulong)_stringsEnd &&
            _data.AsSpan((int)start, name.Length).SequenceEqual(name) && _data[(int)start + name.Length] == 0;
    }

    private bool TryFind(int at, byte[] wanted, ulong bitsBefore, int depth, ref int budget, out ulong bits, out uint type)
    {
        uint info = Word(_data, at + 4);
        bool bitfields = info >> 31 != 0;
        int count = (int)(info & 0xffff);
        for (int i = 0; i < count && budget-- > 0; i++)
        {
            int member = at + TypeBytes + (i * MemberBytes);
            uint where = Word(_data, member + 8);
            bits = bitsBefore + (bitfields ? where & 0xff_ffff : where);
            type = Word(_data, member + 4);
            if (NameIs(member, wanted))
            {
                // A bit field has no address.
                return !bitfields || where >> 24 == 0;
            }

            if (NameIs(member, []) && depth < MaxDepth && TryResolve(type, out int inner) && Kind(inner) is KindStruct or KindUnion &&
                TryFind(inner, wanted, bits, depth + 1, ref budget, out bits, out type))
            {
                return true;
            }
        }

        bits = 0;
        type = 0;
        return false;
    }

    /// <summary>Through typedef, const, volatile, restrict and tags to a type that lays something out.</summary>
    private bool TryResolve(uint type, out int at)
    {
        for (int i = 0; i < MaxDepth; i++)
        {
            at = 0;
            if (type == 0 || type > (uint)_types.Count)
            {
                return false;
            }

            at = _types[(int)type - 1];
            if (Kind(at) is not (8 or 9 or 10 or 11 or 18))
            {
                return true;
            }

            type = Word(_data, at + 8);
        }

        at = 0;
        return false;
    }

    private void Array(uint type, out int length, out int elementBytes)
    {
        length = elementBytes = 0;
        if (TryResolve(type, out int at) && Kind(at) == KindArray && Word(_data, at + TypeBytes + 8) is var elements and <= int.MaxValue)
        {
            length = (int)elements;
            if (TryResolve(Word(_data, at + TypeBytes), out int element) && Kind(element) is KindStruct or KindUnion)
            {
                elementBytes = (int)Math.Min(Word(_data, element + 8), int.MaxValue);
            }
        }
    }
}
