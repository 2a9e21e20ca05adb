using System.Buffers.Binary;

namespace FCtrans.Agent.Transport;

/// <summary>
/// What lies between an SslStream and its socket so that a thread with more to do than wait for one peer can read TLS: it hands out
/// whole records only, one at a time, and says whether it has one. While <see cref="HasRecord"/>, the SslStream's Read finds all that it
/// needs and does not block. A record's length is in the clear (RFC 8446 §5.1); what is in it is checked by the SslStream.
/// <para>One thread reads, one writes. Owns the inner stream.</para>
/// </summary>
internal sealed class TlsRecordStream(SocketStream inner) : Stream
{
    private const int HeaderBytes = 5;

    /// <summary>2^14 bytes of text and at most 256 of the cipher's.</summary>
    private const int MaxRecordBytes = HeaderBytes + (1 << 14) + 256;

    private readonly byte[] _buffer = GC.AllocateUninitializedArray<byte>(4 * MaxRecordBytes, pinned: true);
    private int _at;
    private int _end;

    /// <summary>Of the record that is being handed out.</summary>
    private int _left;

    /// <summary>A whole record, or the rest of one, is here.</summary>
    public bool HasRecord => _left > 0 || NextRecordBytes() is > 0 and var bytes && _end - _at >= bytes;

    public override bool CanRead => true;

    public override bool CanWrite => true;

    public override bool CanSeek => false;

    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    /// <summary>Takes from the socket what is there now; whether there is a record to read, or the end of the stream to find.</summary>
    /// <exception cref="IOException">The connection broke.</exception>
    public bool Pump()
    {
        if (HasRecord)
        {
            return true;
        }

        int got = inner.TryRead(Room());
        _end += Math.Max(0, got);
        return got == 0 || HasRecord;
    }

    public override int Read(Span<byte> buffer)
    {
        while (!HasRecord)
        {
            int got = inner.Read(Room());
            if (got == 0)
            {
                return _end == _at ? 0 : throw new IOException("The peer closed the connection in the middle of a TLS record.");
            }

            _end += got;
        }

        if (_left == 0)
        {
            _left = NextRecordBytes();
        }

        int part = Math.Min(buffer.Length, _left);
        _buffer.AsSpan(_at, part).CopyTo(buffer);
        _at += part;
        _left -= part;
        return part;
    }

    public override void Write(ReadOnlySpan<byte> buffer) => inner.Write(buffer);

    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    public override void Write(byte[] buffer, int offset, int count) => inner.Write(buffer.AsSpan(offset, count));

    public override void Flush()
    {
    }

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            inner.Dispose();
        }

        base.Dispose(disposing);
    }

    /// <summary>0 while its header is not here.</summary>
    private int NextRecordBytes()
    {
        if (_end - _at < HeaderBytes)
        {
            return 0;
        }

        int bytes = HeaderBytes + BinaryPrimitives.ReadUInt16BigEndian(_buffer.AsSpan(_at + 3));
        return bytes <= MaxRecordBytes ? bytes : throw new IOException("The peer does not speak TLS: a record is too long.");
    }

    private Span<byte> Room()
    {
        if (_at > 0)
        {
            Buffer.BlockCopy(_buffer, _at, _buffer, 0, _end - _at);
            _end -= _at;
            _at = 0;
        }

        return _buffer.AsSpan(_end);
    }
}
