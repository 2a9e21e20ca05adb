using System.Buffers.Binary;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;
using Xunit;

namespace FCtrans.Unit.Tests.Transport;

public sealed class RowCodecTests
{
    private const int RowBytes = 64;
    private const int Rows = PageIndex.PageSize / RowBytes;
    private const int MostExceptions = 8;

    [Fact]
    public void Page_structures_of_free_memory_become_small_and_come_back_the_same()
    {
        byte[] page = new byte[PageIndex.PageSize];
        // As the kernel leaves them: flags, a list head that points to itself, and a map count of -1.
        for (int row = 0; row < Rows; row++)
        {
            ulong address = 0xffffea0000400000 + (ulong)(row * RowBytes);
            Write(page, row, 0, 0x000fffffc0000000);
            Write(page, row, 1, address + 8);
            Write(page, row, 2, address + 8);
            Write(page, row, 6, 0x00000000ffffffff);
        }

        Assert.Equal(RowCodec.MinEncodedBytes, AssertComesBack(page));

        // The head of a free block: its order, and its neighbours in the list.
        Write(page, 0, 1, 0xffffea0001230008);
        Write(page, 0, 5, 10);
        Assert.Equal(RowCodec.MinEncodedBytes + 1 + RowBytes, AssertComesBack(page));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(ulong.MaxValue)]
    [InlineData(0x0123456789abcdef)]
    public void One_word_over_and_over_becomes_small_and_comes_back_the_same(ulong word)
    {
        byte[] page = new byte[PageIndex.PageSize];
        for (int i = 0; i < page.Length; i += sizeof(ulong))
        {
            BinaryPrimitives.WriteUInt64LittleEndian(page.AsSpan(i), word);
        }

        Assert.Equal(RowCodec.MinEncodedBytes, AssertComesBack(page));
    }

    [Fact]
    public void Whatever_is_encoded_comes_back_the_same()
    {
        var random = new Random(64);
        int encoded = 0;
        for (int turn = 0; turn < 5000; turn++)
        {
            byte[] page = Table(random);
            for (int changes = random.Next(12); changes > 0; changes--)
            {
                page[random.Next(page.Length)] ^= (byte)random.Next(1, 256);
            }

            Span<byte> target = new byte[RowCodec.MaxEncodedBytes];
            if (RowCodec.TryEncode(page, target, out _))
            {
                Assert.True(RowCodec.IsLikely(page));
                AssertComesBack(page);
                encoded++;
            }
        }

        // Up to eight rows may differ, as long as one of the two places that the step is taken from is left.
        Assert.InRange(encoded, 2000, 5000);
    }

    [Fact]
    public void More_rows_that_differ_than_it_holds_are_not_encoded()
    {
        byte[] page = Table(new Random(1));
        for (int row = 0; row < MostExceptions; row++)
        {
            page[(10 + (2 * row)) * RowBytes] ^= 1;
        }

        Assert.Equal(RowCodec.MaxEncodedBytes, AssertComesBack(page));
        page[63 * RowBytes] ^= 1;
        Assert.False(RowCodec.TryEncode(page, new byte[RowCodec.MaxEncodedBytes], out _));
    }

    [Fact]
    public void Random_content_is_not_encoded()
    {
        byte[] page = new byte[PageIndex.PageSize];
        new Random(2).NextBytes(page);
        Assert.False(RowCodec.IsLikely(page));
        Assert.False(RowCodec.TryEncode(page, new byte[RowCodec.MaxEncodedBytes], out _));
    }

    [Theory]
    [InlineData("cut")]
    [InlineData("longer")]
    [InlineData("too many exceptions")]
    [InlineData("a row that is none")]
    [InlineData("rows out of order")]
    public void What_is_not_exactly_the_pages_is_refused(string damage)
    {
        byte[] page = Table(new Random(3));
        page[20 * RowBytes] ^= 1;
        page[30 * RowBytes] ^= 1;
        byte[] payload = new byte[RowCodec.MaxEncodedBytes];
        Assert.True(RowCodec.TryEncode(page, payload, out int length));
        payload = payload[..length];
        switch (damage)
        {
            case "cut":
                payload = payload[..^1];
                break;
            case "longer":
                payload = [.. payload, 0];
                break;
            case "too many exceptions":
                payload = [9, .. payload[1..], .. new byte[7 * (RowBytes + 1)]];
                break;
            case "a row that is none":
                payload[RowCodec.MinEncodedBytes + RowBytes + 1] = Rows;
                break;
            default:
                payload[RowCodec.MinEncodedBytes] = 30;
                break;
        }

        Assert.Throws<ProtocolException>(() => RowCodec.Decode(payload, page));
    }

    private static int AssertComesBack(byte[] page)
    {
        byte[] target = new byte[RowCodec.MaxEncodedBytes];
        Assert.True(RowCodec.TryEncode(page, target, out int length));
        byte[] back = new byte[PageIndex.PageSize];
        new Random(4).NextBytes(back);
        RowCodec.Decode(target.AsSpan(0, length), back);
        Assert.Equal(page, back);
        return length;
    }

    private static byte[] Table(Random random)
    {
        byte[] page = new byte[PageIndex.PageSize];
        for (int word = 0; word < RowBytes / sizeof(ulong); word++)
        {
            ulong value = (ulong)random.NextInt64(long.MinValue, long.MaxValue);
            ulong step = random.Next(3) == 0 ? 0 : (ulong)random.NextInt64(long.MinValue, long.MaxValue);
            for (int row = 0; row < Rows; row++, value += step)
            {
                Write(page, row, word, value);
            }
        }

        return page;
    }

    private static void Write(byte[] page, int row, int word, ulong value) =>
        BinaryPrimitives.WriteUInt64LittleEndian(page.AsSpan((row * RowBytes) + (word * sizeof(ulong))), value);
}
