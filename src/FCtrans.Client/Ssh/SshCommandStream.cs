using System.Diagnostics;
using System.Text;
using System.Threading.Channels;
using Renci.SshNet;

namespace FCtrans.Client;

/// <summary>
/// A remote command's standard input and output as one duplex stream, fit for HTTP/2: reading and writing wait for each other
/// never, and both end when the command does.
/// </summary>
/// <remarks>
/// Owns the command. SSH.NET's own output stream can only be read blocking, and <see cref="Stream"/>'s default asynchronous
/// methods let one operation in at a time, so that a pending read would hold up every write. So one thread of ours moves the
/// output into a queue, another keeps the last of standard error for messages; writes run on the thread pool because SSH.NET
/// blocks while the remote window is full.
/// </remarks>
internal sealed class SshCommandStream : Stream
{
    /// <summary>What one SSH packet carries.</summary>
    private const int ChunkBytes = 32 * 1024;

    /// <summary>How much of standard error is kept: its end, where the reason stands.</summary>
    private const int ErrorTailChars = 4096;

    private static readonly TimeSpan s_endLimit = TimeSpan.FromSeconds(5);

    private readonly SshCommand _command;
    private readonly Task _execution;
    private readonly Stream _input;
    private readonly Channel<byte[]> _output = Channel.CreateUnbounded<byte[]>(
        new UnboundedChannelOptions { SingleReader = true, SingleWriter = true });

    private readonly SemaphoreSlim _writing = new(1, 1);
    private readonly StringBuilder _errorTail = new();
    private readonly Thread _errorReader;
    private ReadOnlyMemory<byte> _current;
    private long _bytesRead;
    private int _disposed;

    private SshCommandStream(SshCommand command)
    {
        _command = command;
        _execution = command.ExecuteAsync(CancellationToken.None);

        // Its failure is told through reads and Exit; nobody else may be left to look at the task.
        _ = _execution.ContinueWith(static t => t.Exception, TaskScheduler.Default);
        _input = OpenInput(command);
        new Thread(MoveOutput) { IsBackground = true, Name = "fctrans ssh output" }.Start();
        _errorReader = new Thread(KeepErrors) { IsBackground = true, Name = "fctrans ssh errors" };
        _errorReader.Start();
    }

    /// <summary>The way to the command's standard input; a command that has ended already reads none.</summary>
    private static Stream OpenInput(SshCommand command)
    {
        try
        {
            return command.CreateInputStream();
        }
        catch (InvalidOperationException)
        {
            return Stream.Null;
        }
    }

    /// <summary>Starts the command. Blocks for a round trip.</summary>
    public static SshCommandStream Start(SshClient client, string commandText) =>
        new(client.CreateCommand(commandText, Encoding.UTF8));

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => true;

    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    /// <summary>How many bytes of output have been read: none tells a command that never spoke from one that broke off.</summary>
    public long BytesRead => Interlocked.Read(ref _bytesRead);

    /// <summary>The end of what the command wrote to standard error so far.</summary>
    public string ErrorTail
    {
        get
        {
            lock (_errorTail)
            {
                return _errorTail.ToString().Trim();
            }
        }
    }

    /// <summary>
    /// Waits until the command has ended and its standard error is complete.
    /// Returns its exit status, or null when the connection broke, a signal ended it, or the time was over.
    /// </summary>
    public async Task<int?> WaitForExitAsync(TimeSpan limit)
    {
        try
        {
            await _execution.WaitAsync(limit).ConfigureAwait(false);
        }
        catch (Exception)
        {
            return null;
        }

        _errorReader.Join(s_endLimit);
        return _command.ExitStatus;
    }

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        // A read of no bytes (HTTP/2 does that) waits too: it asks when data has come.
        while (_current.IsEmpty)
        {
            if (!await _output.Reader.WaitToReadAsync(cancellationToken).ConfigureAwait(false))
            {
                return 0;
            }

            if (_output.Reader.TryRead(out byte[]? chunk))
            {
                _current = chunk;
            }
        }

        int count = Math.Min(buffer.Length, _current.Length);
        _current[..count].CopyTo(buffer);
        _current = _current[count..];
        Interlocked.Add(ref _bytesRead, count);
        return count;
    }

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override int Read(byte[] buffer, int offset, int count) =>
        ReadAsync(buffer.AsMemory(offset, count)).AsTask().GetAwaiter().GetResult();

    public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        await _writing.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            // A write that has begun is not cancelled half-way: the bytes after it would make no sense. But SSH.NET waits for
            // the window of a channel that has closed until its timeout; that the command ended is known before. Such a
            // write is left behind: it holds a copy of its chunk and ends before it reads the caller's buffer again.
            Task write = Task.Run(() => WriteAll(buffer), CancellationToken.None);
            if (await Task.WhenAny(write, _execution).ConfigureAwait(false) != write && !write.IsCompleted)
            {
                _ = write.ContinueWith(static t => t.Exception, TaskScheduler.Default);
                throw new IOException("The remote command has ended.");
            }

            await write.ConfigureAwait(false);
        }
        finally
        {
            _writing.Release();
        }
    }

    public override Task WriteAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        WriteAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override void Write(byte[] buffer, int offset, int count) =>
        WriteAsync(buffer.AsMemory(offset, count)).AsTask().GetAwaiter().GetResult();

    public override void Flush()
    {
    }

    public override Task FlushAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    protected override void Dispose(bool disposing)
    {
        if (disposing && Interlocked.Exchange(ref _disposed, 1) == 0)
        {
            // Closing the channel waits for the other side; the caller, often HTTP/2's own loop, shall not.
            _ = Task.Run(CloseAsync);
        }

        base.Dispose(disposing);
    }

    /// <summary>
    /// Closes the channel, which ends the command's standard input with it. Never the input alone: SSH.NET may send that end,
    /// or data, after the channel has been closed by the other side meanwhile, and sshd answers that by closing the whole
    /// connection. So a command must know by itself how much it reads, or read until its channel is closed.
    /// </summary>
    private async Task CloseAsync()
    {
        // A write under way has its channel until it is done. One that waits for a window that never opens ends with it.
        bool alone = await _writing.WaitAsync(s_endLimit).ConfigureAwait(false);
        try
        {
            _command.Dispose();
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            Debug.WriteLine(e);
        }

        if (alone)
        {
            _writing.Release();
        }

        _output.Writer.TryComplete();
    }

    private void WriteAll(ReadOnlyMemory<byte> buffer)
    {
        byte[] chunk = new byte[Math.Min(buffer.Length, ChunkBytes)];
        while (!buffer.IsEmpty)
        {
            // SSH.NET swallows what is written to a closed channel; a lost write must not look like a done one.
            if (_execution.IsCompleted || Volatile.Read(ref _disposed) != 0)
            {
                throw new IOException("The remote command has ended.");
            }

            int count = Math.Min(buffer.Length, chunk.Length);
            buffer[..count].CopyTo(chunk);
            try
            {
                _input.Write(chunk, 0, count);
            }
            catch (Exception e) when (e is not (IOException or OutOfMemoryException))
            {
                throw new IOException("The connection broke: " + e.Message, e);
            }

            buffer = buffer[count..];
        }
    }

    private void MoveOutput()
    {
        byte[] buffer = new byte[2 * ChunkBytes];
        Exception? failure = null;
        try
        {
            int count;
            while ((count = _command.OutputStream.Read(buffer, 0, buffer.Length)) > 0)
            {
                _output.Writer.TryWrite(buffer.AsSpan(0, count).ToArray());
            }

            // The stream ends in the same way when the connection breaks: only the task knows.
            if (_execution.IsFaulted)
            {
                failure = new IOException("The connection broke: " + _execution.Exception!.InnerException!.Message);
            }
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            failure = new IOException("The connection broke: " + e.Message, e);
        }

        _output.Writer.TryComplete(failure);
    }

    private void KeepErrors()
    {
        byte[] bytes = new byte[1024];
        char[] chars = new char[1024];
        Decoder decoder = Encoding.UTF8.GetDecoder();
        try
        {
            int count;
            while ((count = _command.ExtendedOutputStream.Read(bytes, 0, bytes.Length)) > 0)
            {
                int length = decoder.GetChars(bytes, 0, count, chars, 0);
                lock (_errorTail)
                {
                    _errorTail.Append(chars, 0, length);
                    if (_errorTail.Length > ErrorTailChars)
                    {
                        _errorTail.Remove(0, _errorTail.Length - ErrorTailChars);
                    }
                }
            }
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            Debug.WriteLine(e);
        }
    }
}
