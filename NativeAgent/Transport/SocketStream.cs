using System.Net.Sockets;
using System.Runtime.InteropServices;
using FCtrans.Agent.Interop;

namespace FCtrans.Agent.Transport;

/// <summary>
/// A connected TCP socket as a stream: <c>recv(2)</c> and <c>send(2)</c> and nothing between, which is what makes it worth having beside
/// NetworkStream: a fault waits for four of these calls. One thread may read while another writes. Does not own the socket; each call
/// holds its handle, so closing the socket from another thread ends a call that blocks in it.
/// </summary>
internal sealed unsafe class SocketStream(Socket socket) : Stream
{
    private readonly SafeSocketHandle _handle = socket.SafeHandle;

    public override bool CanRead => true;

    public override bool CanWrite => true;

    public override bool CanSeek => false;

    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    /// <summary>Blocks until there is something; 0 at the end of the stream.</summary>
    /// <exception cref="IOException">The connection broke, or the socket's time limit passed.</exception>
    public override int Read(Span<byte> buffer) => Receive(buffer, 0) is >= 0 and var got ? got : throw Broken(Errno.EAGAIN);

    /// <summary>What is there now; 0 at the end of the stream, -1 when nothing is.</summary>
    /// <exception cref="IOException">The connection broke.</exception>
    public int TryRead(Span<byte> buffer) => Receive(buffer, MessageFlag.DontWait);

    public override void Write(ReadOnlySpan<byte> buffer)
    {
        fixed (byte* bytes = buffer)
        {
            for (int done = 0; done < buffer.Length;)
            {
                nint sent = Libc.Send(_handle, bytes + done, (nuint)(buffer.Length - done), MessageFlag.NoSignal);
                if (sent >= 0)
                {
                    done += (int)sent;
                }
                else if (Marshal.GetLastPInvokeError() is not Errno.EINTR and var errno)
                {
                    throw Broken(errno);
                }
            }
        }
    }

    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    public override void Write(byte[] buffer, int offset, int count) => Write(buffer.AsSpan(offset, count));

    public override void Flush()
    {
    }

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    private static IOException Broken(int errno) => new(new SocketException(SocketErrorOf(errno)).Message);

    /// <summary>Of .NET's numbers, only to have its texts.</summary>
    private static int SocketErrorOf(int errno) => (int)(errno switch
    {
        Errno.EPIPE or Errno.ECONNRESET => SocketError.ConnectionReset,
        Errno.ETIMEDOUT or Errno.EAGAIN => SocketError.TimedOut,
        Errno.EHOSTUNREACH => SocketError.HostUnreachable,
        Errno.ENETUNREACH => SocketError.NetworkUnreachable,
        Errno.ECONNREFUSED => SocketError.ConnectionRefused,
        _ => SocketError.ConnectionAborted,
    });

    private int Receive(Span<byte> buffer, int flags)
    {
        fixed (byte* bytes = buffer)
        {
            while (true)
            {
                nint got = Libc.Receive(_handle, bytes, (nuint)buffer.Length, flags);
                if (got >= 0)
                {
                    return (int)got;
                }

                int errno = Marshal.GetLastPInvokeError();
                if (errno == Errno.EAGAIN)
                {
                    return -1;
                }

                if (errno != Errno.EINTR)
                {
                    throw Broken(errno);
                }
            }
        }
    }
}
