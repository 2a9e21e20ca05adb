namespace FCtrans.Unit.Tests.Transport;

/// <summary>What a peer has sent, and then closed; what is answered goes nowhere.</summary>
internal sealed class RecordedStream(byte[] input) : Stream
{
    private int _at;

    public override bool CanRead => true;

    public override bool CanWrite => true;

    public override bool CanSeek => false;

    public override long Length => input.Length;

    public override long Position { get => _at; set => throw new NotSupportedException(); }

    public override int Read(Span<byte> buffer)
    {
        int part = Math.Min(buffer.Length, input.Length - _at);
        input.AsSpan(_at, part).CopyTo(buffer);
        _at += part;
        return part;
    }

    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    public override void Write(ReadOnlySpan<byte> buffer)
    {
    }

    public override void Write(byte[] buffer, int offset, int count)
    {
    }

    public override void Flush()
    {
    }

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();
}
