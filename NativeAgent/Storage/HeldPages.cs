using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Storage;

/// <summary>Pages that a main host may ask for: a sub-host's store, or what was left at the source.</summary>
internal unsafe interface IHeldPages
{
    /// <summary>Copies the page to <paramref name="destination"/>; false, and nothing copied, when it is not held.</summary>
    bool TryGet(long page, byte* destination);

    /// <summary>The next run of held pages at or after <paramref name="from"/>; false at the end.</summary>
    bool NextHeld(long from, out PageRange run);
}

/// <summary>How both kinds of holder answer; see docs/protocol.md. Allocates nothing.</summary>
internal static unsafe class HeldPages
{
    /// <summary>
    /// Answers a Get: a byte a page that says whether it is held, then the pages that are. Flushed when no further request has come
    /// already, so that those of one burst leave together.
    /// </summary>
    /// <param name="held">The pages.</param>
    /// <param name="connection">Where the request came from.</param>
    /// <param name="request">A frame of type Get.</param>
    /// <param name="buffer">At least <see cref="FrameHeader.MaxPayloadBytes"/>.</param>
    public static void Give(IHeldPages held, FrameConnection connection, in FrameHeader request, byte* buffer)
    {
        int count = (int)request.PageCount;
        byte* content = buffer + count;
        for (int i = 0; i < count; i++)
        {
            bool here = held.TryGet(request.FirstPage + i, content);
            buffer[i] = here ? (byte)1 : (byte)0;
            content += here ? PageIndex.PageSize : 0;
        }

        connection.Send(
            FrameHeader.Of(FrameType.GetDone, request.Range, request.Sequence), new ReadOnlySpan<byte>(buffer, (int)(content - buffer)));
        if (!connection.HasBufferedInput)
        {
            connection.Flush();
        }
    }

    /// <summary>Answers a List: what is held, in runs.</summary>
    public static void List(IHeldPages held, FrameConnection connection)
    {
        for (long from = 0; held.NextHeld(from, out var run); from = run.End)
        {
            connection.Send(FrameHeader.Of(FrameType.Held, run));
        }

        connection.Send(FrameHeader.Of(FrameType.ListDone));
        connection.Flush();
    }
}
