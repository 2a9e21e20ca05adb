using System.Buffers.Binary;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;
using Xunit;

namespace FCtrans.Unit.Tests.Transport;

/// <summary>Pages that <see cref="RowCodec"/> makes small.</summary>
internal static class RowTables
{
    /// <summary>Rows by a constant step, but for some (at most 8); no two pages, versions or numbers of exceptions are alike.</summary>
    public static byte[] Page(int page, int version, int exceptions = 0)
    {
        byte[] table = new byte[PageIndex.PageSize];
        for (int at = 0; at < table.Length; at += 8)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(table.AsSpan(at), at % 64 == 8 ? (ulong)(version + 1) : ((ulong)page << 32) + (ulong)at);
        }

        for (int i = 0; i < exceptions; i++)
        {
            table[((i * 7) + 10) * 64] ^= 0xff;
        }

        return table;
    }

    /// <summary>The payload of a frame of these.</summary>
    public static byte[] Encode(IReadOnlyCollection<byte[]> pages)
    {
        byte[] rows = new byte[pages.Count * RowCodec.MaxEncodedBytes];
        int length = 0;
        foreach (byte[] page in pages)
        {
            Assert.True(RowCodec.TryEncode(page, rows.AsSpan(length), out int bytes));
            length += bytes;
        }

        return rows[..length];
    }
}
