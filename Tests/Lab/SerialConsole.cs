using System.Diagnostics;
using System.Net.Sockets;
using System.Text;

namespace FCtrans.Lab;

/// <summary>
/// The guest's serial port: commands to its oracle and their answers. It connects to QEMU's socket, again and again
/// while that fails, and follows the guest to another host. A command whose answer did not come is sent again under its
/// identifier; the oracle repeats an answer but never an action. One command at a time; thread-safe.
/// </summary>
/// <remarks>One thread of its own reads. QEMU drops what the guest writes while nobody is connected, so unasked lines
/// (<see cref="Log"/>) can be missing; the oracle's counters can't.</remarks>
public sealed class SerialConsole
{
    private static readonly TimeSpan ResendAfter = TimeSpan.FromSeconds(3);
    private readonly object _lock = new(); // guards all fields below; pulsed at each line, connection and the end
    private readonly object _oneCommand = new();
    private readonly string _session = Guid.NewGuid().ToString("N")[..8]; // another console's identifiers differ
    private readonly List<string> _log = [];
    private Func<string> _path;
    private Socket? _socket;
    private int _connections;
    private long _counter;
    private string _wanted = "";
    private string? _answer;
    private bool _closed;

    internal SerialConsole(Func<string> socketPath)
    {
        _path = socketPath;
        new Thread(ReadForever) { IsBackground = true, Name = "guest's serial port" }.Start();
    }

    /// <summary>Lines that were no answers, oldest first (the last 1000): the boot, mismatches the oracle found, kernel messages.</summary>
    public IReadOnlyList<string> Log
    {
        get
        {
            lock (_lock)
            {
                return [.. _log];
            }
        }
    }

    /// <summary>Sends the oracle a command and waits for its answer.</summary>
    /// <param name="command">One line; Tests/Guest/oracle.c lists the commands.</param>
    /// <param name="timeout">How long to wait; 60 s if not given.</param>
    /// <exception cref="LabException">The oracle refused it, no answer came in time, or the console was closed.</exception>
    public OracleAnswer Invoke(string command, TimeSpan? timeout = null)
    {
        if (command.Contains('\n', StringComparison.Ordinal) || command.Length > 2000)
        {
            throw new LabException("A command is one line of at most 2000 characters.");
        }

        TimeSpan limit = timeout ?? TimeSpan.FromSeconds(60);
        lock (_oneCommand)
        {
            long started = Stopwatch.GetTimestamp();
            string identifier;
            lock (_lock)
            {
                identifier = $"#{_session}-{++_counter}";
                _wanted = identifier + " ";
                _answer = null;
            }

            while (true)
            {
                int sentOn = Send($"\u0015{identifier} {command}\n"); // ^U: forget what an earlier connection left of a line
                long sent = Stopwatch.GetTimestamp();
                lock (_lock)
                {
                    while (_answer is null && !_closed && _connections == sentOn && Stopwatch.GetElapsedTime(sent) < ResendAfter
                        && Stopwatch.GetElapsedTime(started) < limit)
                    {
                        Monitor.Wait(_lock, 100);
                    }

                    if (_answer is not null)
                    {
                        return OracleAnswer.Parse(command, _answer);
                    }

                    if (_closed)
                    {
                        throw new LabException("The guest's console was closed.");
                    }

                    if (Stopwatch.GetElapsedTime(started) >= limit)
                    {
                        throw new LabException($"The guest did not answer '{command}' within {limit.TotalSeconds} s" +
                            (_socket is null ? " (nobody is at its serial port's socket)" : "") +
                            $". Its last lines: {string.Join(" | ", _log.TakeLast(5))}");
                    }
                }
            }
        }
    }

    /// <summary>Whether a line of the log matches; waits up to the time given for one that does.</summary>
    public bool WaitForLine(Func<string, bool> matches, TimeSpan timeout)
    {
        long started = Stopwatch.GetTimestamp();
        lock (_lock)
        {
            while (!_log.Any(matches))
            {
                if (_closed || Stopwatch.GetElapsedTime(started) > timeout)
                {
                    return false;
                }

                Monitor.Wait(_lock, 100);
            }

            return true;
        }
    }

    internal void Follow(Func<string> socketPath)
    {
        lock (_lock)
        {
            _path = socketPath;
            _socket?.Dispose(); // the reader sees that and connects to the new path
        }
    }

    internal void Close()
    {
        lock (_lock)
        {
            _closed = true;
            _socket?.Dispose();
            Monitor.PulseAll(_lock);
        }
    }

    // Returns the number of the connection it was sent on. Without one it waits a little: the caller comes again.
    private int Send(string text)
    {
        Socket? socket;
        int connection;
        lock (_lock)
        {
            if (_socket is null && !_closed)
            {
                Monitor.Wait(_lock, 100);
            }

            (socket, connection) = (_socket, _connections);
        }

        try
        {
            ReadOnlySpan<byte> bytes = Encoding.UTF8.GetBytes(text);
            while (socket is not null && bytes.Length > 0)
            {
                bytes = bytes[socket.Send(bytes)..];
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The connection broke; the command goes out again on the next.
        }

        return connection;
    }

    private void ReadForever()
    {
        var buffer = new byte[4096];
        var line = new StringBuilder();
        while (Connect() is { } socket)
        {
            line.Clear(); // half a line of an earlier connection is worth nothing
            try
            {
                for (int count; (count = socket.Receive(buffer)) > 0;)
                {
                    foreach (byte b in buffer.AsSpan(0, count))
                    {
                        if (b is not ((byte)'\n' or (byte)'\r'))
                        {
                            if (line.Length < 8192)
                            {
                                line.Append((char)b);
                            }
                        }
                        else if (line.Length > 0)
                        {
                            TakeLine(line.ToString());
                            line.Clear();
                        }
                    }
                }
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // As at the end of the stream.
            }

            lock (_lock)
            {
                _socket = null;
                socket.Dispose();
                Monitor.PulseAll(_lock);
            }
        }
    }

    private Socket? Connect()
    {
        while (true)
        {
            Func<string> path;
            lock (_lock)
            {
                if (_closed)
                {
                    return null;
                }

                path = _path;
            }

            var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            try
            {
                socket.Connect(new UnixDomainSocketEndPoint(path()));
            }
            catch (Exception e) when (e is SocketException or LabException)
            {
                socket.Dispose();
                socket = null;
            }

            lock (_lock)
            {
                if (socket is not null && !_closed && ReferenceEquals(path, _path))
                {
                    _socket = socket;
                    _connections++;
                    Monitor.PulseAll(_lock);
                    return socket;
                }

                socket?.Dispose();
                if (!_closed)
                {
                    Monitor.Wait(_lock, 20);
                }
            }
        }
    }

    private void TakeLine(string line)
    {
        lock (_lock)
        {
            if (_wanted.Length > 0 && line.StartsWith(_wanted, StringComparison.Ordinal))
            {
                // A guest that boots again echoes the command before its oracle has the terminal: that is no answer yet.
                string answer = line[_wanted.Length..];
                _answer = answer == "ok" || answer.StartsWith("ok ", StringComparison.Ordinal) || answer.StartsWith("error ", StringComparison.Ordinal)
                    ? answer
                    : _answer;
            }
            else if (!line.StartsWith('#'))
            {
                _log.Add(line);
                if (_log.Count > 1000)
                {
                    _log.RemoveAt(0);
                }
            }

            Monitor.PulseAll(_lock);
        }
    }
}
