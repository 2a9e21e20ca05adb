using System.Globalization;
using System.Net.Sockets;
using System.Text;

namespace FCtrans.Bench.SplitVms;

/// <summary>One connection to a redis server, one request at a time. Not thread-safe.</summary>
internal sealed class RedisClient : IDisposable
{
    private readonly Socket _socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
    private readonly byte[] _buffer = new byte[256 << 10];
    private int _start;
    private int _end;

    public RedisClient(string host, int port, TimeSpan timeout)
    {
        _socket.ReceiveTimeout = _socket.SendTimeout = (int)timeout.TotalMilliseconds;
        _socket.Connect(host, port);
    }

    /// <summary>Sends a command; its answer's length if that is a string, its value if it is a number, -1 for nothing.</summary>
    /// <exception cref="InvalidDataException">The server refused it.</exception>
    public long Call(params ReadOnlySpan<byte[]> words)
    {
        _start = _end = 0;
        Write('*', words.Length);
        foreach (byte[] word in words)
        {
            Write('$', word.Length);
            word.CopyTo(_buffer.AsSpan(_end));
            _end += word.Length;
            "\r\n"u8.CopyTo(_buffer.AsSpan(_end));
            _end += 2;
        }

        for (int sent = 0; sent < _end;)
        {
            sent += _socket.Send(_buffer.AsSpan(sent, _end - sent));
        }

        _start = _end = 0;
        string line = ReadLine();
        switch (line[0])
        {
            case '-':
                throw new InvalidDataException($"redis: {line}");
            case '+':
                return 0;
            case ':':
                return long.Parse(line.AsSpan(1), CultureInfo.InvariantCulture);
            default:
                int length = int.Parse(line.AsSpan(1), CultureInfo.InvariantCulture);
                while (length >= 0 && _end - _start < length + 2)
                {
                    Receive();
                }

                return length;
        }
    }

    public void Dispose() => _socket.Dispose();

    private void Write(char kind, int number) => _end += Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{kind}{number}\r\n"), _buffer.AsSpan(_end));

    private string ReadLine()
    {
        int length;
        while ((length = _buffer.AsSpan(_start, _end - _start).IndexOf("\r\n"u8)) < 0)
        {
            Receive();
        }

        string line = Encoding.ASCII.GetString(_buffer, _start, length);
        _start += length + 2;
        return line;
    }

    private void Receive()
    {
        int count = _socket.Receive(_buffer.AsSpan(_end));
        _end += count > 0 ? count : throw new IOException("The server closed the connection.");
    }
}
