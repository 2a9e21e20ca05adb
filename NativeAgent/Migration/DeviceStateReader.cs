using System.Net.Sockets;

namespace FCtrans.Agent.Migration;

/// <summary>
/// Takes the stream that the source's QEMU writes to a Unix socket, on a thread of its own from the beginning: QEMU writes it
/// while it holds its global lock, so that its monitor would not answer as long as nobody reads.
/// </summary>
internal sealed class DeviceStateReader : IDisposable
{
    private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly Action<ReadOnlyMemory<byte>> _accept;
    private readonly string _path;
    private readonly Thread _thread;
    private readonly ManualResetEventSlim _ended = new();
    private volatile Socket? _connection;
    private volatile Exception? _failure;
    private long _bytes;

    /// <param name="path">Of the socket that QEMU is to be told.</param>
    /// <param name="accept">Gets each piece, on the reader's thread.</param>
    public DeviceStateReader(string path, Action<ReadOnlyMemory<byte>> accept)
    {
        _path = path;
        _accept = accept;
        File.Delete(path);
        _listener.Bind(new UnixDomainSocketEndPoint(path));
        _listener.Listen(1);
        _thread = new Thread(Run) { IsBackground = true, Name = "device state" };
        _thread.Start();
    }

    /// <summary>Waits for the end of the stream.</summary>
    /// <returns>Its length in bytes.</returns>
    /// <exception cref="MigrationException">It broke, or could not be passed on.</exception>
    public long WaitEnd(CancellationToken cancel)
    {
        _ended.Wait(cancel);
        return _failure is { } failure
            ? throw new MigrationException($"The device state could not be passed on: {failure.Message}", failure)
            : Interlocked.Read(ref _bytes);
    }

    public void Dispose()
    {
        // Closing makes a blocked accept or receive return.
        _listener.Dispose();
        _connection?.Dispose();
        _thread.Join();
        _ended.Dispose();
        File.Delete(_path);
    }

    private void Run()
    {
        try
        {
            _connection = _listener.Accept();
            byte[] buffer = new byte[256 * 1024];
            for (int read; (read = _connection.Receive(buffer)) > 0;)
            {
                Interlocked.Add(ref _bytes, read);
                _accept(buffer.AsMemory(0, read));
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or MigrationException)
        {
            _failure = e;
        }

        _ended.Set();
    }
}
