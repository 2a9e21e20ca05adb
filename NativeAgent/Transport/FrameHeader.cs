using System.Buffers.Binary;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Transport;

/// <summary>
/// The 32 bytes before each payload, little-endian:
/// <code>
///  0  4  magic "FCT1"     8  4  payload bytes       16  8  first page
///  4  1  type            12  4  sequence            24  8  page count
///  5  1  flags            6  2  reserved, 0
/// </code>
/// What comes from the network goes through <see cref="FrameReader"/>, the one place that checks its bounds.
/// </summary>
internal readonly record struct FrameHeader(
    FrameType Type, byte Flags, int PayloadBytes, uint Sequence, long FirstPage, long PageCount)
{
    public const int Size = 32;

    /// <summary>Where <see cref="PayloadBytes"/> is.</summary>
    public const int PayloadBytesAt = 8;

    /// <summary>The most bytes that one frame carries.</summary>
    public const int MaxPayloadBytes = 1 << 20;

    /// <summary>The most pages in one Pages frame.</summary>
    public const int MaxPages = MaxPayloadBytes / PageIndex.PageSize;

    /// <summary>The most pages in one Get: its answer has a presence byte a page besides their content.</summary>
    public const int MaxGetPages = MaxPages - 1;

    /// <summary>The longest text of an address and port in a Take.</summary>
    public const int MaxEndPointBytes = 64;

    /// <summary>"FCT1" as a little-endian number.</summary>
    public const uint Magic = 0x31544346;

    public PageRange Range => new(FirstPage, PageCount);

    public static FrameHeader Of(FrameType type, PageRange range, uint sequence = 0, byte flags = 0) =>
        new(type, flags, 0, sequence, range.First, range.Count);

    public static FrameHeader Of(FrameType type, uint sequence = 0, byte flags = 0) => new(type, flags, 0, sequence, 0, 0);

    public void Write(Span<byte> destination)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(destination, Magic);
        destination[4] = (byte)Type;
        destination[5] = Flags;
        BinaryPrimitives.WriteUInt16LittleEndian(destination[6..], 0);
        BinaryPrimitives.WriteInt32LittleEndian(destination[8..], PayloadBytes);
        BinaryPrimitives.WriteUInt32LittleEndian(destination[12..], Sequence);
        BinaryPrimitives.WriteInt64LittleEndian(destination[16..], FirstPage);
        BinaryPrimitives.WriteInt64LittleEndian(destination[24..], PageCount);
    }
}
