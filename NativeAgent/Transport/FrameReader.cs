using System.Buffers.Binary;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Transport;

/// <summary>
/// The one place where a frame header from the network is believed or not: whatever passes here has a type that this
/// connection may carry in this direction, pages that the VM has, and a payload that fits both.
/// </summary>
internal static class FrameReader
{
    /// <summary>The page table has five bits for where a page is, one value of which says nowhere.</summary>
    private const int MaxSubIndex = 30;

    /// <param name="bytes">32 bytes.</param>
    /// <param name="vmPages">Pages of the VM.</param>
    /// <param name="fromConnector">Who sent it: the side that connected, or the side that listens.</param>
    /// <param name="error">Why not, for the peer and the log. Never holds more of the input than its numbers.</param>
    public static bool TryParse(
        ReadOnlySpan<byte> bytes, long vmPages, ConnectionPurpose purpose, bool fromConnector, bool helloDone,
        out FrameHeader header, out string? error)
    {
        header = default;
        if (BinaryPrimitives.ReadUInt32LittleEndian(bytes) != FrameHeader.Magic)
        {
            error = "A frame does not begin with FCT1.";
            return false;
        }

        header = new(
            (FrameType)bytes[4],
            bytes[5],
            BinaryPrimitives.ReadInt32LittleEndian(bytes[8..]),
            BinaryPrimitives.ReadUInt32LittleEndian(bytes[12..]),
            BinaryPrimitives.ReadInt64LittleEndian(bytes[16..]),
            BinaryPrimitives.ReadInt64LittleEndian(bytes[24..]));
        error = BinaryPrimitives.ReadUInt16LittleEndian(bytes[6..]) != 0
            ? "A frame's reserved bytes are not 0."
            : Problem(header, vmPages, purpose, fromConnector, helloDone);
        return error is null;
    }

    private static string? Problem(
        in FrameHeader header, long vmPages, ConnectionPurpose purpose, bool fromConnector, bool helloDone)
    {
        if (!helloDone)
        {
            if (header.Type is not (FrameType.Hello or FrameType.Error))
            {
                return $"The first frame is of type {(int)header.Type}, not Hello.";
            }
        }
        else if (!Allows(purpose, fromConnector, header.Type))
        {
            return $"A {purpose} connection does not carry frames of type {(int)header.Type} in this direction.";
        }

        if (header.PayloadBytes is < 0 or > FrameHeader.MaxPayloadBytes)
        {
            return $"A frame's payload of {header.PayloadBytes} bytes is longer than {FrameHeader.MaxPayloadBytes}.";
        }

        // Subtracts instead of adding: first + count could overflow.
        if (header.FirstPage < 0 || header.PageCount < 0 || header.FirstPage > vmPages
            || header.PageCount > vmPages - header.FirstPage)
        {
            return $"A frame names {header.PageCount} pages from {header.FirstPage}; the VM has {vmPages}.";
        }

        if (header.Flags > MaxFlags(header.Type))
        {
            return $"A frame of type {(int)header.Type} has flags {header.Flags}.";
        }

        return PayloadFits(header) ? null
            : $"A frame of type {(int)header.Type} with {header.PageCount} pages and {header.PayloadBytes} bytes of payload is not valid.";
    }

    private static int MaxFlags(FrameType type) => type switch
    {
        FrameType.Hello => PeerHello.MaxStreams - 1,
        FrameType.Located => MaxSubIndex,
        FrameType.DeviceState => 1,
        _ => 0,
    };

    private static bool PayloadFits(in FrameHeader header) => header.Type switch
    {
        FrameType.Hello => header.PageCount == 0 && header.PayloadBytes == PeerHello.Size,
        FrameType.Pages => header.PageCount is >= 1 and <= FrameHeader.MaxPages
            && header.PayloadBytes == header.PageCount * PageIndex.PageSize,
        FrameType.CompressedPages => header.PageCount is >= 1 and <= PageCompression.BlockPages
            && header.PayloadBytes >= 1 && header.PayloadBytes < header.PageCount * PageIndex.PageSize,
        FrameType.RowPages => header.PageCount is >= 1 and <= RowCodec.MaxPages
            && header.PayloadBytes >= header.PageCount * RowCodec.MinEncodedBytes && header.PayloadBytes <= header.PageCount * RowCodec.MaxEncodedBytes,
        FrameType.ZeroPages or FrameType.Discard or FrameType.Located or FrameType.Held or FrameType.Pinned =>
            header.PageCount >= 1 && header.PayloadBytes == 0,
        FrameType.Barrier or FrameType.BarrierDone or FrameType.List or FrameType.ListDone =>
            header.PageCount == 0 && header.PayloadBytes == 0,
        FrameType.Get => header.PageCount is >= 1 and <= FrameHeader.MaxGetPages && header.PayloadBytes == 0,
        FrameType.GetDone => header.PageCount is >= 1 and <= FrameHeader.MaxGetPages
            && header.PayloadBytes >= header.PageCount
            && (header.PayloadBytes - header.PageCount) % PageIndex.PageSize == 0
            && (header.PayloadBytes - header.PageCount) / PageIndex.PageSize <= header.PageCount,
        FrameType.Take => header.PageCount is >= 1 and <= FrameHeader.MaxGetPages
            && header.PayloadBytes is >= 1 and <= FrameHeader.MaxEndPointBytes,
        FrameType.TakeDone => header.PageCount is >= 1 and <= FrameHeader.MaxGetPages && header.PayloadBytes == header.PageCount,
        FrameType.DeviceState => header.PageCount == 0,
        FrameType.Control => header.PageCount == 0 && header.PayloadBytes >= 1,
        FrameType.Error => header.PageCount == 0,
        _ => false,
    };

    private static bool Allows(ConnectionPurpose purpose, bool fromConnector, FrameType type) => (purpose, fromConnector) switch
    {
        (_, _) when type == FrameType.Error => true,
        (ConnectionPurpose.Bulk, true) => type is FrameType.Pages or FrameType.CompressedPages or FrameType.RowPages or FrameType.ZeroPages
            or FrameType.Discard or FrameType.Located or FrameType.Barrier or FrameType.List,
        (ConnectionPurpose.Bulk, false) => type is FrameType.BarrierDone or FrameType.Held or FrameType.ListDone,
        (ConnectionPurpose.Demand, true) => type is FrameType.Get,
        (ConnectionPurpose.Demand, false) => type is FrameType.GetDone,
        (ConnectionPurpose.Drain, true) => type is FrameType.Get or FrameType.Discard or FrameType.Barrier,
        (ConnectionPurpose.Drain, false) => type is FrameType.GetDone or FrameType.BarrierDone,
        (ConnectionPurpose.Take, true) => type is FrameType.Take,
        (ConnectionPurpose.Take, false) => type is FrameType.TakeDone,
        (ConnectionPurpose.Control, true) => type is FrameType.Pinned or FrameType.Located or FrameType.Discard or FrameType.DeviceState
            or FrameType.Control or FrameType.Barrier,
        (ConnectionPurpose.Control, false) => type is FrameType.BarrierDone or FrameType.Control,
        _ => false,
    };
}
