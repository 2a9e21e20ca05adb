using System.Runtime.InteropServices;
using System.Text;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Transport;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;

namespace FCtrans.Agent.Migration;

/// <summary>
/// The source as one more store after the switch-over: gives the main host the pages that were left, on demand and by the way, until it
/// has taken all and says so. Each connection has its own thread and keeps its frames' order; nobody can put anything here.
/// </summary>
/// <param name="limiter">For what is fetched by the way. What the guest waits for is never held up. Null for none.</param>
internal sealed unsafe class LeftPagesServer(RateLimiter? limiter = null) : IDisposable
{
    private readonly ManualResetEventSlim _over = new();
    private volatile LeftPages? _pages;
    private long _pagesGiven;

    /// <summary>Before the switch-over nothing is left, and whoever asks has to come again.</summary>
    public LeftPages? Pages
    {
        get => _pages;
        set => _pages = value;
    }

    /// <summary>How often a page was given; one may be asked for twice.</summary>
    public long PagesGiven => Interlocked.Read(ref _pagesGiven);

    /// <summary>Set when the main host has said that it needs the source no more.</summary>
    public WaitHandle Over => _over.WaitHandle;

    /// <summary>For a <see cref="PeerListener"/>: returns when the peer has closed the connection.</summary>
    /// <exception cref="IOException">It broke, or the peer broke the protocol.</exception>
    public void Serve(FrameConnection connection, PeerHello hello)
    {
        var pages = _pages ?? throw connection.Refuse("Nothing was left at the source yet.");
        var limited = hello is { Role: WorkerRole.Main, Purpose: ConnectionPurpose.Demand } ? null : limiter;
        byte* buffer = (byte*)NativeMemory.AlignedAlloc(FrameHeader.MaxPayloadBytes, PageIndex.PageSize);
        try
        {
            while (connection.Read(out var frame, new Span<byte>(buffer, FrameHeader.MaxPayloadBytes)))
            {
                switch (frame.Type)
                {
                    case FrameType.Get:
                        FailurePoint("source.giving");
                        Interlocked.Add(ref _pagesGiven, frame.PageCount);
                        long before = connection.BytesSent;
                        HeldPages.Give(pages, connection, frame, buffer);
                        limited?.Take(connection.BytesSent - before);
                        break;
                    case FrameType.Discard:
                        FailurePoint("source.giving-up");
                        pages.Discard(frame.Range);
                        break;
                    case FrameType.Barrier:
                        connection.Send(FrameHeader.Of(FrameType.BarrierDone, frame.Sequence));
                        connection.Flush();
                        break;
                    case FrameType.List:
                        HeldPages.List(pages, connection);
                        break;
                    case FrameType.Control when (ControlCode)buffer[0] == ControlCode.End:
                        WorkerLog.Write($"the main host needs the source no more: {Encoding.UTF8.GetString(buffer + 1, frame.PayloadBytes - 1)}");
                        _over.Set();
                        return;
                    default:
                        throw connection.Refuse($"A source takes no frames of type {(int)frame.Type}.");
                }
            }
        }
        catch (IOException e) when (e is not ProtocolException)
        {
            connection.Refuse(e.Message);
            connection.Drain();
            throw;
        }
        finally
        {
            NativeMemory.AlignedFree(buffer);
        }
    }

    public void Dispose() => _over.Dispose();

    private static void FailurePoint(string name) => Diagnostics.FailurePoint.Reach(name);
}
