using System.Runtime.InteropServices;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Storage;

/// <summary>What a <see cref="StoreServer"/> has done since it was made.</summary>
internal readonly record struct StoreFigures(
    long StoredPages, long LimitPages, long PagesWritten, long PagesRead, long PagesDiscarded, int Connections, string? LastError);

/// <summary>
/// Serves a <see cref="PageStore"/>: give <see cref="Serve"/> to a <see cref="PeerListener"/>, which calls it on each connection's own
/// thread. Bulk connections change the store, demand connections read it; each handles its frames in order, without allocating.
/// </summary>
internal sealed unsafe class StoreServer(PageStore store)
{
    private long _written;
    private long _read;
    private long _discarded;
    private int _connections;
    private volatile string? _lastError;

    public StoreFigures Figures => new(
        store.StoredPages, store.LimitPages, Interlocked.Read(ref _written), Interlocked.Read(ref _read),
        Interlocked.Read(ref _discarded), Volatile.Read(ref _connections), _lastError);

    /// <summary>Returns when the peer has closed the connection.</summary>
    /// <exception cref="IOException">It broke, the peer broke the protocol, or the store failed; also in <see cref="StoreFigures.LastError"/>.</exception>
    public void Serve(FrameConnection connection, PeerHello hello)
    {
        byte* buffer = (byte*)NativeMemory.AlignedAlloc(FrameHeader.MaxPayloadBytes, PageIndex.PageSize);
        Interlocked.Increment(ref _connections);
        try
        {
            if (hello.Purpose == ConnectionPurpose.Demand)
            {
                ServeDemand(connection, buffer);
            }
            else
            {
                ServeBulk(connection, buffer);
            }
        }
        catch (Exception e) when (e is IOException)
        {
            _lastError = e.Message;
            if (e is not ProtocolException)
            {
                // The peer learns why; if it is the network that broke, this fails too and nothing is lost.
                connection.Refuse(e.Message);
            }

            connection.Drain();
            throw;
        }
        finally
        {
            Interlocked.Decrement(ref _connections);
            NativeMemory.AlignedFree(buffer);
        }
    }

    private void ServeBulk(FrameConnection connection, byte* buffer)
    {
        // What is packed comes to the beginning of the buffer, and its pages behind it: both fit, a packed frame having few pages.
        byte* unpacked = buffer + (PageCompression.BlockPages * PageIndex.PageSize);
        while (connection.Read(out var frame, new Span<byte>(buffer, FrameHeader.MaxPayloadBytes)))
        {
            switch (frame.Type)
            {
                case FrameType.Pages:
                    Diagnostics.FailurePoint.Reach("sub.storing");
                    store.Put(frame.Range, buffer);
                    Interlocked.Add(ref _written, frame.PageCount);
                    break;
                case FrameType.CompressedPages:
                    PageCompression.Decompress(new(buffer, frame.PayloadBytes), new(unpacked, (int)frame.Range.Bytes));
                    store.Put(frame.Range, unpacked);
                    Interlocked.Add(ref _written, frame.PageCount);
                    break;
                case FrameType.RowPages:
                    RowCodec.Decode(new(buffer, frame.PayloadBytes), new(unpacked, (int)frame.Range.Bytes));
                    store.Put(frame.Range, unpacked);
                    Interlocked.Add(ref _written, frame.PageCount);
                    break;
                case FrameType.ZeroPages:
                case FrameType.Discard:
                    Interlocked.Add(ref _discarded, store.Discard(frame.Range));
                    break;
                case FrameType.Barrier:
                    connection.Send(FrameHeader.Of(FrameType.BarrierDone, frame.Sequence));
                    connection.Flush();
                    break;
                case FrameType.List:
                    HeldPages.List(store, connection);
                    break;
                default:
                    throw connection.Refuse($"A store takes no frames of type {(int)frame.Type}.");
            }
        }
    }

    private void ServeDemand(FrameConnection connection, byte* buffer)
    {
        while (connection.ReadHeader(out var frame))
        {
            if (frame.Type != FrameType.Get)
            {
                throw connection.Refuse($"A store takes no frames of type {(int)frame.Type} here.");
            }

            Interlocked.Add(ref _read, frame.PageCount);
            HeldPages.Give(store, connection, frame, buffer);
        }
    }
}
