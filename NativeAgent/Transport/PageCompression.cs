using FCtrans.Agent.Memory;
using K4os.Compression.LZ4;

namespace FCtrans.Agent.Transport;

/// <summary>LZ4 blocks of pages, as CompressedPages frames carry them. Does not allocate.</summary>
internal static class PageCompression
{
    /// <summary>Pages in one block at most: small enough that one kind of content fills it, large enough to find repetition.</summary>
    public const int BlockPages = 16;

    // What must be saved for the receiver's work to be worth it.
    private const double LargestRatio = 0.75;

    /// <summary>A buffer of this length holds whatever <see cref="TryCompress"/> produces.</summary>
    public static int BufferBytes { get; } = LZ4Codec.MaximumOutputSize(BlockPages * PageIndex.PageSize);

    /// <summary>Compresses a block if that pays. Its first page is tried alone, so that random content costs little.</summary>
    /// <param name="pages">1 to <see cref="BlockPages"/> whole pages.</param>
    /// <param name="target">At least <see cref="BufferBytes"/> long.</param>
    /// <param name="length">Of the result.</param>
    public static bool TryCompress(ReadOnlySpan<byte> pages, Span<byte> target, out int length)
    {
        length = LZ4Codec.Encode(pages[..PageIndex.PageSize], target, LZ4Level.L00_FAST);
        if (length <= 0 || length > PageIndex.PageSize * LargestRatio)
        {
            return false;
        }

        if (pages.Length > PageIndex.PageSize)
        {
            length = LZ4Codec.Encode(pages, target, LZ4Level.L00_FAST);
        }

        return length > 0 && length <= pages.Length * LargestRatio;
    }

    /// <summary>Takes a frame's payload apart; the peer may have sent anything.</summary>
    /// <param name="payload">Of a CompressedPages frame.</param>
    /// <param name="pages">As long as the frame's pages.</param>
    /// <exception cref="ProtocolException">It is not an LZ4 block of exactly these pages.</exception>
    public static void Decompress(ReadOnlySpan<byte> payload, Span<byte> pages)
    {
        if (LZ4Codec.Decode(payload, pages) != pages.Length)
        {
            throw new ProtocolException("A frame's compressed pages are damaged.");
        }
    }
}
