using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Security.Authentication;
using System.Text;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Transport;

/// <summary>
/// One connection between two workers, after its Hello. Owns the stream and the socket.
/// <para>Any thread may send: a frame goes into one write buffer under one lock, and leaves when the buffer is full or at
/// <see cref="Flush"/>. One thread only reads. Both block. <see cref="Abort"/> from any thread ends both.</para>
/// <para>Neither path allocates. Every failure is an <see cref="IOException"/>; after one, the connection is of no more use.</para>
/// </summary>
internal sealed class FrameConnection : IDisposable
{
    private const int WriteBufferBytes = 128 * 1024;
    private const int ReadBufferBytes = 64 * 1024;
    private const int RecordBytes = 16 * 1024;

    // After a large payload comes another: what is read along with its header has to be copied.
    private const int HeaderReadBytes = 4 * 1024;

    private readonly Lock _sendLock = new();
    private readonly Stream _stream;
    private readonly SocketStream? _plain;
    private readonly TlsRecordStream? _records;
    private readonly Socket _socket;
    private readonly bool _connector;
    private readonly byte[] _write = GC.AllocateUninitializedArray<byte>(WriteBufferBytes, pinned: true);
    private readonly byte[] _read = GC.AllocateUninitializedArray<byte>(ReadBufferBytes, pinned: true);
    private int _writeUsed;
    private int _readAt;
    private int _readEnd;
    private int _payloadLeft;
    private bool _payloadsAreLarge;
    private bool _helloDone;
    private int _aborted;
    private long _bytesSent;
    private long _bytesReceived;

    /// <param name="connector">Whether this is the side that connected.</param>
    /// <param name="records">What is below the TLS in <paramref name="stream"/>; null without TLS, and where <see cref="ReadAvailable"/> is not used.</param>
    internal FrameConnection(
        Stream stream, Socket socket, long vmPages, ConnectionPurpose purpose, bool connector, TlsRecordStream? records = null)
    {
        _stream = stream;
        _plain = stream as SocketStream;
        _records = records;
        _socket = socket;
        _connector = connector;
        VmPages = vmPages;
        Purpose = purpose;
    }

    /// <summary>Pages of the VM: the bound of every page index on it.</summary>
    public long VmPages { get; private set; }

    public ConnectionPurpose Purpose { get; private set; }

    /// <summary>The peer's address on this connection.</summary>
    public IPAddress RemoteAddress => ((IPEndPoint)_socket.RemoteEndPoint!).Address;

    /// <summary>Our own address on this connection.</summary>
    public IPAddress LocalAddress => ((IPEndPoint)_socket.LocalEndPoint!).Address;

    /// <summary>Bytes of frames handed to the stream so far, before TLS. Any thread may read it.</summary>
    public long BytesSent => Interlocked.Read(ref _bytesSent);

    /// <summary>Bytes of frames taken from the stream so far. Any thread may read it.</summary>
    public long BytesReceived => Interlocked.Read(ref _bytesReceived);

    /// <summary>For the reading thread: more of what the peer sent is already here, so answers may wait for it before they are flushed.</summary>
    public bool HasBufferedInput => _readEnd - _readAt >= FrameHeader.Size;

    /// <summary>
    /// Puts a frame into the write buffer; its <see cref="FrameHeader.PayloadBytes"/> is set from <paramref name="payload"/>.
    /// When it returns, the payload may be changed.
    /// </summary>
    public void Send(in FrameHeader header, ReadOnlySpan<byte> payload = default)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(payload.Length, FrameHeader.MaxPayloadBytes);
        lock (_sendLock)
        {
            if (WriteBufferBytes - _writeUsed < FrameHeader.Size)
            {
                WriteOut();
            }

            (header with { PayloadBytes = payload.Length }).Write(_write.AsSpan(_writeUsed, FrameHeader.Size));
            _writeUsed += FrameHeader.Size;
            // Small payloads are gathered. Of one that does not fit only so much as fills a record of TLS goes with its header: the rest is
            // written straight from where it lies.
            int room = WriteBufferBytes - _writeUsed;
            int part = payload.Length <= room ? payload.Length : Math.Min(room, RecordBytes - (_writeUsed % RecordBytes));
            payload[..part].CopyTo(_write.AsSpan(_writeUsed));
            _writeUsed += part;
            if (part < payload.Length)
            {
                WriteOut();
                WriteStream(payload[part..]);
            }
        }
    }

    /// <summary>A Control or Error frame, or any other with a text, and flushes.</summary>
    public void SendText(FrameType type, byte? code, string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text.Length > 100_000 ? text[..100_000] : text);
        byte[] payload = code is { } first ? [first, .. bytes] : bytes;
        Send(FrameHeader.Of(type), payload);
        Flush();
    }

    /// <summary>Sends what waits in the write buffer.</summary>
    public void Flush()
    {
        lock (_sendLock)
        {
            WriteOut();
        }
    }

    /// <summary>
    /// Reads one frame whole. False when the peer has closed the connection between two frames.
    /// An Error frame is thrown as <see cref="ProtocolException"/>.
    /// </summary>
    /// <param name="buffer">For the payload; <see cref="FrameHeader.MaxPayloadBytes"/> long where the connection may carry as much.</param>
    public bool Read(out FrameHeader header, Span<byte> buffer)
    {
        if (!ReadHeader(out header))
        {
            return false;
        }

        if (header.PayloadBytes > buffer.Length)
        {
            throw Refuse($"A payload of {header.PayloadBytes} bytes was not expected here.");
        }

        ReadPayload(buffer[..header.PayloadBytes]);
        return true;
    }

    /// <summary>
    /// Reads a header. False when the peer has closed the connection between two frames. The caller then takes the payload by
    /// <see cref="ReadPayload"/>, in as many parts as it likes, before the next header.
    /// </summary>
    public bool ReadHeader(out FrameHeader header)
    {
        if (_payloadLeft != 0)
        {
            throw new InvalidOperationException("The payload of the last frame has not been read.");
        }

        header = default;
        if (!FillTo(FrameHeader.Size))
        {
            return false;
        }

        bool good = FrameReader.TryParse(
            _read.AsSpan(_readAt, FrameHeader.Size), VmPages, Purpose, !_connector, _helloDone, out header, out string? error);
        if (!good)
        {
            throw Refuse(error!);
        }

        _readAt += FrameHeader.Size;
        _bytesReceived += FrameHeader.Size;
        _payloadLeft = header.PayloadBytes;
        _payloadsAreLarge = header.PayloadBytes >= ReadBufferBytes;
        if (header.Type == FrameType.Error)
        {
            byte[] text = new byte[Math.Min(header.PayloadBytes, 4096)];
            ReadPayload(text);
            throw new ProtocolException("The peer ended the connection: " + Encoding.UTF8.GetString(text));
        }

        return true;
    }

    /// <summary>Reads the next bytes of the current frame's payload.</summary>
    public void ReadPayload(Span<byte> destination)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(destination.Length, _payloadLeft);
        _payloadLeft -= destination.Length;
        _bytesReceived += destination.Length;
        while (destination.Length > 0)
        {
            int part = Math.Min(destination.Length, _readEnd - _readAt);
            if (part > 0)
            {
                _read.AsSpan(_readAt, part).CopyTo(destination);
                _readAt += part;
                destination = destination[part..];
            }
            else if (destination.Length >= ReadBufferBytes / 2)
            {
                int got = ReadStream(destination);
                if (got == 0)
                {
                    throw Cut();
                }

                destination = destination[got..];
            }
            else if (!FillTo(1))
            {
                throw Cut();
            }
        }
    }

    /// <summary>
    /// For a reading thread that has more to do than wait here: takes what is there now, without blocking. False when that was nothing.
    /// Then take the whole frames by <see cref="TryReadFrame"/>, before this is called again: it overwrites them.
    /// </summary>
    public bool ReadAvailable()
    {
        if (_records is not null && !Guarded(_records, static r => r.Pump()))
        {
            return false;
        }

        Compact();
        int got = _plain is not null ? Guarded(this, static c => c._plain!.TryRead(c._read.AsSpan(c._readEnd))) : ReadStream(_read.AsSpan(_readEnd));
        if (got == 0)
        {
            throw _readEnd == 0 ? new IOException("The peer closed the connection.") : Cut();
        }

        _readEnd += Math.Max(0, got);
        return got > 0;
    }

    /// <summary>The next frame of those that <see cref="ReadAvailable"/> has brought; false when there is no whole one.</summary>
    /// <param name="payload">Good until the next <see cref="ReadAvailable"/>; does not move in memory.</param>
    public bool TryReadFrame(out FrameHeader header, out ReadOnlySpan<byte> payload)
    {
        header = default;
        payload = default;
        if (!HasBufferedInput)
        {
            return false;
        }

        // Looked at before the header is checked: a frame that will not fit is refused, whatever it says it is.
        uint bytes = BinaryPrimitives.ReadUInt32LittleEndian(_read.AsSpan(_readAt + FrameHeader.PayloadBytesAt));
        if (bytes > ReadBufferBytes / 2)
        {
            throw Refuse($"A payload of {bytes} bytes was not expected here.");
        }

        if (_readEnd - _readAt < FrameHeader.Size + bytes)
        {
            return false;
        }

        ReadHeader(out header);
        payload = _read.AsSpan(_readAt, header.PayloadBytes);
        _readAt += header.PayloadBytes;
        _bytesReceived += header.PayloadBytes;
        _payloadLeft = 0;
        return true;
    }

    /// <summary>After <see cref="ReadAvailable"/> said true: it may have left something that <c>poll(2)</c> on <see cref="Descriptor"/> does not tell of.</summary>
    public bool MayHaveMore => _records is { HasRecord: true };

    /// <summary>For <c>poll(2)</c>; as long as the connection is not disposed.</summary>
    public int Descriptor => (int)_socket.Handle;

    /// <summary>Ends the connection from any thread: the reader and senders get an <see cref="IOException"/>. May be called again.</summary>
    public void Abort()
    {
        if (Interlocked.Exchange(ref _aborted, 1) == 0)
        {
            try
            {
                _socket.Shutdown(SocketShutdown.Both);
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // The peer was faster.
            }
        }
    }

    /// <summary>Call when the reading thread reads no more; <see cref="Abort"/> makes it stop.</summary>
    public void Dispose()
    {
        Abort();
        _stream.Dispose();
        _socket.Dispose();
    }

    /// <summary>The listener learns them from the Hello.</summary>
    internal void Establish(long vmPages, ConnectionPurpose purpose)
    {
        VmPages = vmPages;
        Purpose = purpose;
        _helloDone = true;
        Diagnostics.FailurePoint.Register(this);
    }

    /// <summary>Reads the peer's Hello.</summary>
    [SkipLocalsInit]
    internal PeerHello ReadHello()
    {
        Span<byte> payload = stackalloc byte[PeerHello.Size];
        if (!Read(out var frame, payload))
        {
            throw new IOException("The peer closed the connection before its Hello.");
        }

        return PeerHello.Read(payload, frame.Flags);
    }

    internal void SendHello(PeerHello hello)
    {
        Span<byte> payload = stackalloc byte[PeerHello.Size];
        hello.Write(payload);
        Send(FrameHeader.Of(FrameType.Hello, flags: hello.Stream), payload);
        Flush();
    }

    /// <summary>Tells the peer why, ends the connection, and gives the exception to throw.</summary>
    internal ProtocolException Refuse(string reason)
    {
        try
        {
            SendText(FrameType.Error, null, reason);
        }
        catch (IOException)
        {
            // It is gone already.
        }

        return new ProtocolException(reason);
    }

    /// <summary>
    /// For the reading thread after <see cref="Refuse"/>: waits until the peer has closed, at most about a second, and throws away what it
    /// still sends; closing over unread bytes would reset the connection and the peer would never see why.
    /// </summary>
    internal void Drain()
    {
        try
        {
            _socket.Shutdown(SocketShutdown.Send);
            _socket.ReceiveTimeout = 1000;
            long end = Environment.TickCount64 + 1000;
            while (Environment.TickCount64 < end && ReadStream(_read) > 0)
            {
            }
        }
        catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException)
        {
            // Gone.
        }
    }

    private static IOException Cut() => new("The peer closed the connection in the middle of a frame.");

    private bool FillTo(int bytes)
    {
        if (_readEnd - _readAt >= bytes)
        {
            return true;
        }

        Compact();
        int limit = _payloadsAreLarge ? HeaderReadBytes : ReadBufferBytes;
        while (_readEnd < bytes)
        {
            int got = ReadStream(_read.AsSpan(_readEnd, limit - _readEnd));
            if (got == 0)
            {
                return _readEnd == 0 ? false : throw Cut();
            }

            _readEnd += got;
        }

        return true;
    }

    private void Compact()
    {
        if (_readAt > 0)
        {
            Buffer.BlockCopy(_read, _readAt, _read, 0, _readEnd - _readAt);
            _readEnd -= _readAt;
            _readAt = 0;
        }
    }

    private static TResult Guarded<T, TResult>(T of, Func<T, TResult> read)
    {
        try
        {
            return read(of);
        }
        catch (ObjectDisposedException e)
        {
            throw new IOException("The connection ended: " + e.Message, e);
        }
    }

    private int ReadStream(Span<byte> destination)
    {
        try
        {
            return _stream.Read(destination);
        }
        catch (Exception e) when (IsEndOfStream(e))
        {
            throw new IOException("The connection ended: " + e.Message, e);
        }
    }

    private void WriteOut()
    {
        int used = _writeUsed;
        _writeUsed = 0;
        if (used > 0)
        {
            WriteStream(_write.AsSpan(0, used));
        }
    }

    private void WriteStream(ReadOnlySpan<byte> bytes)
    {
        try
        {
            _stream.Write(bytes);
            Interlocked.Add(ref _bytesSent, bytes.Length);
        }
        catch (Exception e) when (IsEndOfStream(e))
        {
            throw new IOException("The connection ended: " + e.Message, e);
        }
    }

    private static bool IsEndOfStream(Exception e) =>
        e is ObjectDisposedException or InvalidOperationException or AuthenticationException or SocketException;
}
