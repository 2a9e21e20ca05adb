using System.Net;
using System.Runtime.InteropServices;
using System.Text;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Storage;

/// <summary>What a <see cref="StoreServer"/> has done since it was made.</summary>
internal readonly record struct StoreFigures(
    long StoredPages, long LimitPages, long PagesWritten, long PagesRead, long PagesDiscarded, int Connections, string? LastError);

/// <summary>
/// Serves a <see cref="PageStore"/>: give <see cref="Serve"/> to a <see cref="PeerListener"/>, which calls it on each connection's own
/// thread. Bulk and take connections change the store, demand connections read it; each handles its frames in order, without allocating.
/// </summary>
/// <param name="store">Not owned.</param>
/// <param name="source">What can be taken from the VM's source; null: nothing.</param>
internal sealed unsafe class StoreServer(PageStore store, SourceReader? source = null)
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
            switch (hello.Purpose)
            {
                case ConnectionPurpose.Demand:
                    ServeDemand(connection, buffer);
                    break;
                case ConnectionPurpose.Take:
                    ServeTake(connection, buffer);
                    break;
                default:
                    ServeBulk(connection, buffer);
                    break;
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
        using var filler = store.OpenFiller();
        // What is packed comes to the beginning of the buffer, and its pages behind it: both fit, a packed frame having few pages.
        byte* unpacked = buffer + (PageCompression.BlockPages * PageIndex.PageSize);
        while (connection.Read(out var frame, new Span<byte>(buffer, FrameHeader.MaxPayloadBytes)))
        {
            switch (frame.Type)
            {
                case FrameType.Pages:
                    FailurePoint.Reach("sub.storing");
                    store.Put(frame.Range, buffer, filler);
                    Interlocked.Add(ref _written, frame.PageCount);
                    break;
                case FrameType.CompressedPages:
                    PageCompression.Decompress(new(buffer, frame.PayloadBytes), new(unpacked, (int)frame.Range.Bytes));
                    store.Put(frame.Range, unpacked, filler);
                    Interlocked.Add(ref _written, frame.PageCount);
                    break;
                case FrameType.RowPages:
                    FailurePoint.Reach("sub.storing");
                    store.PutRows(frame.Range, new(buffer, frame.PayloadBytes), new(unpacked, (int)frame.Range.Bytes), filler);
                    Interlocked.Add(ref _written, frame.PageCount);
                    break;
                case FrameType.ZeroPages:
                case FrameType.Discard:
                    Interlocked.Add(ref _discarded, store.Discard(frame.Range));
                    break;
                case FrameType.Barrier:
                    filler.Release();
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

    /// <summary>Takes pages from the source, run by run. One that the source does not have is not changed here.</summary>
    private void ServeTake(FrameConnection connection, byte* buffer)
    {
        using var reader = (source ?? throw connection.Refuse("This store can't take pages from a source.")).Open();
        using var filler = store.OpenFiller();
        byte[] text = new byte[FrameHeader.MaxEndPointBytes];
        while (connection.Read(out var frame, text))
        {
            if (frame.Type != FrameType.Take || !IPEndPoint.TryParse(Encoding.UTF8.GetString(text, 0, frame.PayloadBytes), out var at))
            {
                throw connection.Refuse("A store takes pages from an address and port only.");
            }

            reader.Read(at, frame.Range, buffer);
            int count = (int)frame.PageCount;
            byte* content = buffer + count;
            FailurePoint.Reach("sub.taking");
            for (int i = 0; i < count;)
            {
                int run = 1;
                while (i + run < count && buffer[i + run] == buffer[i])
                {
                    run++;
                }

                if (buffer[i] == 1)
                {
                    store.Put(new(frame.FirstPage + i, run), content, filler);
                    content += (long)run * PageIndex.PageSize;
                    Interlocked.Add(ref _written, run);
                }

                i += run;
            }

            connection.Send(FrameHeader.Of(FrameType.TakeDone, frame.Range, frame.Sequence), new ReadOnlySpan<byte>(buffer, count));
            connection.Flush();
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
