using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using FCtrans.Contracts;

namespace FCtrans.Agent.Transport;

/// <summary>
/// The first frame each way: who speaks, and what for.
/// <code>
///  0  32  split id, lower-case hexadecimal digits     36  8  pages of the VM
/// 32   1  role (1 source, 2 main, 3 sub)              44  8  pages that the speaker's store may hold; 0: not a store, or no limit
/// 33   1  purpose
/// 34   2  protocol version
/// </code>
/// </summary>
/// <param name="Stream">Which of a peer's bulk connections this is; in the frame's flags.</param>
internal sealed record PeerHello(
    string SplitId, WorkerRole Role, ConnectionPurpose Purpose, long Pages, long LimitPages = 0, byte Stream = 0)
{
    public const int Size = 52;

    /// <summary>The most bulk connections of one peer.</summary>
    public const int MaxStreams = 16;

    public const ushort Version = 1;

    private const int IdDigits = 32;

    /// <summary>Whether <paramref name="text"/> is 32 lower-case hexadecimal digits.</summary>
    public static bool IsSplitId(string? text) => text is { Length: IdDigits } && text.All(char.IsAsciiHexDigitLower);

    public void Write(Span<byte> destination)
    {
        if (!IsSplitId(SplitId))
        {
            throw new ArgumentException("A split id is 32 lower-case hexadecimal digits.");
        }

        Encoding.ASCII.GetBytes(SplitId, destination);
        destination[32] = (byte)Role;
        destination[33] = (byte)Purpose;
        BinaryPrimitives.WriteUInt16LittleEndian(destination[34..], Version);
        BinaryPrimitives.WriteInt64LittleEndian(destination[36..], Pages);
        BinaryPrimitives.WriteInt64LittleEndian(destination[44..], LimitPages);
    }

    /// <exception cref="ProtocolException">It is no Hello of this version.</exception>
    public static PeerHello Read(ReadOnlySpan<byte> bytes, byte stream = 0)
    {
        string id = bytes.Length == Size ? Encoding.ASCII.GetString(bytes[..IdDigits]) : "";
        if (!IsSplitId(id))
        {
            throw new ProtocolException("The peer's Hello has no split id.");
        }

        ushort version = BinaryPrimitives.ReadUInt16LittleEndian(bytes[34..]);
        if (version != Version)
        {
            throw new ProtocolException(string.Create(CultureInfo.InvariantCulture,
                $"The peer speaks version {version} of the data protocol, we speak {Version}: both hosts need the same agent."));
        }

        long pages = BinaryPrimitives.ReadInt64LittleEndian(bytes[36..]);
        long limit = BinaryPrimitives.ReadInt64LittleEndian(bytes[44..]);
        if (bytes[32] is < 1 or > 3 || bytes[33] is < 1 or > 5 || pages is < 1 or > (1L << 40) || limit is < 0 or > (1L << 40))
        {
            throw new ProtocolException("The peer's Hello has a role, purpose or size that does not exist.");
        }

        return new(id, (WorkerRole)bytes[32], (ConnectionPurpose)bytes[33], pages, limit, stream);
    }
}
