using System.Buffers;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace FCtrans.Agent.Hypervisor;

/// <summary>
/// QEMU's machine protocol (QMP) over its Unix socket, one command after another. Owns the connection. One thread at a time.
/// QEMU serves one client of a socket at a time: others wait for its greeting until the first goes away, so keep it no longer
/// than needed.
/// Source: docs/interop/qmp-spec.txt of QEMU.
/// </summary>
internal sealed partial class QemuMonitor : IDisposable
{
    /// <summary>A reply longer than this is refused: no command that FCtrans uses has one.</summary>
    private const int MaximumLineBytes = 32 << 20;

    /// <summary>Events kept for <see cref="WaitForEvent"/>; the oldest go first.</summary>
    private const int MaximumEvents = 256;

    private readonly Socket? _socket;
    private readonly LibvirtMonitor? _libvirt;
    private readonly Queue<JsonObject> _events = new();
    private byte[] _buffer = new byte[64 << 10];
    private int _start;
    private int _end;
    private long _lastId;

    private QemuMonitor(Socket socket, string path)
    {
        _socket = socket;
        Path = path;
    }

    private QemuMonitor(LibvirtMonitor libvirt, string path)
    {
        _libvirt = libvirt;
        Path = path;
    }

    /// <summary>The socket, or <c>libvirt:UUID</c>: libvirt keeps the socket to itself and passes commands on.</summary>
    public string Path { get; }

    /// <summary>How long a command may take. Default 10 s.</summary>
    public TimeSpan CommandTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>As the greeting said, such as <c>7.2.22</c>.</summary>
    public string QemuVersion { get; private set; } = "";

    /// <summary>Connects and greets. Tries again until <paramref name="timeout"/> while nobody listens there yet.</summary>
    /// <exception cref="MonitorException">Nobody listens, or another client has the monitor.</exception>
    public static QemuMonitor Connect(string path, TimeSpan timeout)
    {
        if (LibvirtMonitor.TryParse(path, out var uuid))
        {
            var passed = new QemuMonitor(LibvirtMonitor.Open(uuid), path);
            passed.QemuVersion = passed.QueryVersion();
            return passed;
        }

        long deadline = Environment.TickCount64 + (long)timeout.TotalMilliseconds;
        while (true)
        {
            var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            var monitor = new QemuMonitor(socket, path);
            try
            {
                socket.Connect(new UnixDomainSocketEndPoint(path));
                monitor.Greet(deadline);
                return monitor;
            }
            catch (SocketException e)
            {
                monitor.Dispose();
                if (Environment.TickCount64 >= deadline)
                {
                    throw new MonitorException(
                        MonitorException.Unreachable, $"Could not connect to the monitor at {path}: {e.Message}", e);
                }

                // Nobody listens yet; the wait for a state that the kernel does not announce.
                Thread.Sleep(2);
            }
            catch (ArgumentException e)
            {
                monitor.Dispose();
                throw new MonitorException(MonitorException.Unreachable, $"No socket can have the path {path}.", e);
            }
            catch
            {
                monitor.Dispose();
                throw;
            }
        }
    }

    /// <summary>Runs a command; what it returns (often an empty object).</summary>
    /// <exception cref="MonitorException">QEMU refused it, went away, or did not answer in time.</exception>
    public JsonNode Execute(string command, JsonObject? arguments = null, TimeSpan? timeout = null)
    {
        if (_libvirt is not null)
        {
            return ExecuteThroughLibvirt(command, arguments);
        }

        long id = ++_lastId;
        var request = new JsonObject { ["execute"] = command, ["id"] = id };
        if (arguments is not null)
        {
            request["arguments"] = arguments;
        }

        long deadline = Environment.TickCount64 + (long)(timeout ?? CommandTimeout).TotalMilliseconds;
        Send(request);
        while (true)
        {
            var message = Receive(deadline)
                ?? throw new MonitorException(MonitorException.Timeout, $"The monitor at {Path} did not answer '{command}' in time.");
            if (message.ContainsKey("event"))
            {
                Keep(message);
                continue;
            }

            if (message["id"] is not JsonValue answered || !answered.TryGetValue(out long answeredId) || answeredId != id)
            {
                if (message.ContainsKey("error") && message["id"] is null)
                {
                    throw Error(command, message["error"]);
                }

                // The answer to a command that was given up.
                continue;
            }

            return Result(command, message);
        }
    }

    private JsonNode Result(string command, JsonObject message)
    {
        if (message["error"] is { } error)
        {
            throw Error(command, error);
        }

        var result = message["return"] ?? throw new MonitorException(
            MonitorException.Protocol, $"The monitor at {Path} answered '{command}' with neither a result nor an error.");
        message.Remove("return");
        return result;
    }

    private JsonNode ExecuteThroughLibvirt(string command, JsonObject? arguments)
    {
        // No id: libvirt gives its own.
        var request = new JsonObject { ["execute"] = command };
        if (arguments is not null)
        {
            request["arguments"] = arguments;
        }

        var bytes = new ArrayBufferWriter<byte>(256);
        using (var writer = new Utf8JsonWriter(bytes))
        {
            request.WriteTo(writer);
        }

        return Result(command, ParseMessage(System.Text.Encoding.UTF8.GetBytes(
            _libvirt!.Execute(System.Text.Encoding.UTF8.GetString(bytes.WrittenSpan)))));
    }

    /// <summary>Runs a command of the human monitor; its text.</summary>
    /// <exception cref="MonitorException">As <see cref="Execute"/>. A wrong command is an answer, not an error.</exception>
    public string HumanMonitor(string commandLine, TimeSpan? timeout = null)
        => Execute("human-monitor-command", new JsonObject { ["command-line"] = commandLine }, timeout) is JsonValue value
            && value.TryGetValue(out string? text) ? text : "";

    /// <summary>Waits for the next event of this name, also one that came during earlier commands; null when the time is over.</summary>
    /// <exception cref="MonitorException">QEMU went away.</exception>
    public JsonObject? WaitForEvent(string name, TimeSpan timeout)
    {
        if (_libvirt is not null)
        {
            // Events go to libvirt; who waits for one looks at the state again after the time.
            Thread.Sleep(timeout);
            return null;
        }

        long deadline = Environment.TickCount64 + (long)timeout.TotalMilliseconds;
        while (true)
        {
            while (_events.TryDequeue(out var kept))
            {
                if (Text(kept["event"]) == name)
                {
                    return kept;
                }
            }

            if (Receive(deadline) is not { } message)
            {
                return null;
            }

            Keep(message);
        }
    }

    public void Dispose()
    {
        _socket?.Dispose();
        _libvirt?.Dispose();
    }

    private static string Text(JsonNode? node) => node is JsonValue value && value.TryGetValue(out string? text) ? text : "";

    private static MonitorException Error(string command, JsonNode? error)
    {
        var members = error as JsonObject;
        return new MonitorException(Text(members?["class"]), $"QEMU refused '{command}': {Text(members?["desc"])}");
    }

    private void Greet(long deadline)
    {
        var greeting = Receive(deadline) ?? throw new MonitorException(
            MonitorException.Timeout,
            $"The monitor at {Path} did not greet: another client has it. Close that one, or give the VM a monitor socket of its own for FCtrans.");
        var qemu = (greeting["QMP"] as JsonObject)?["version"] is JsonObject version ? version["qemu"] as JsonObject : null;
        if (qemu is null)
        {
            throw new MonitorException(MonitorException.Protocol, $"What listens at {Path} is no QEMU monitor in control mode.");
        }

        QemuVersion = $"{qemu["major"]}.{qemu["minor"]}.{qemu["micro"]}";
        long left = Math.Max(1, deadline - Environment.TickCount64);
        Execute("qmp_capabilities", timeout: TimeSpan.FromMilliseconds(left));
    }

    private void Keep(JsonObject message)
    {
        if (message.ContainsKey("event"))
        {
            if (_events.Count >= MaximumEvents)
            {
                _events.Dequeue();
            }

            _events.Enqueue(message);
        }
    }

    private void Send(JsonObject message)
    {
        var bytes = new ArrayBufferWriter<byte>(256);
        using (var writer = new Utf8JsonWriter(bytes))
        {
            message.WriteTo(writer);
        }

        bytes.Write("\n"u8);
        var left = bytes.WrittenSpan;
        try
        {
            _socket!.SendTimeout = (int)Math.Max(1, CommandTimeout.TotalMilliseconds);
            while (left.Length > 0)
            {
                left = left[_socket.Send(left)..];
            }
        }
        catch (SocketException e)
        {
            throw new MonitorException(MonitorException.Closed, $"The monitor at {Path} went away: {e.Message}", e);
        }
    }

    /// <summary>The next message; null when the time is over.</summary>
    private JsonObject? Receive(long deadline)
    {
        int looked = _start;
        while (true)
        {
            int newline = _buffer.AsSpan(looked, _end - looked).IndexOf((byte)'\n');
            if (newline >= 0)
            {
                int lineEnd = looked + newline;
                var line = _buffer.AsMemory(_start, lineEnd - _start);
                _start = looked = lineEnd + 1;
                if (!line.Span.Trim(" \r\t"u8).IsEmpty)
                {
                    return ParseMessage(line.Span);
                }

                continue;
            }

            if (!Fill(deadline))
            {
                return null;
            }

            looked = _start;
        }
    }

    private JsonObject ParseMessage(ReadOnlySpan<byte> line)
    {
        try
        {
            return JsonNode.Parse(line, documentOptions: new JsonDocumentOptions { MaxDepth = 64, AllowDuplicateProperties = false }) as JsonObject
                ?? throw new MonitorException(MonitorException.Protocol, $"The monitor at {Path} sent something that is no object.");
        }
        catch (JsonException e)
        {
            throw new MonitorException(MonitorException.Protocol, $"The monitor at {Path} sent something that is not JSON.", e);
        }
    }

    /// <summary>Reads more; false when the time is over.</summary>
    private bool Fill(long deadline)
    {
        if (_start == _end)
        {
            _start = _end = 0;
        }
        else if (_end == _buffer.Length && _start > 0)
        {
            _buffer.AsSpan(_start, _end - _start).CopyTo(_buffer);
            _end -= _start;
            _start = 0;
        }

        if (_end == _buffer.Length)
        {
            if (_buffer.Length >= MaximumLineBytes)
            {
                throw new MonitorException(MonitorException.Protocol, $"The monitor at {Path} sent a line without end.");
            }

            System.Array.Resize(ref _buffer, _buffer.Length * 2);
        }

        long left = deadline - Environment.TickCount64;
        try
        {
            if (!_socket!.Poll(TimeSpan.FromMilliseconds(Math.Max(0, left)), SelectMode.SelectRead))
            {
                return false;
            }

            int count = _socket.Receive(_buffer.AsSpan(_end));
            if (count == 0)
            {
                throw new MonitorException(MonitorException.Closed, $"QEMU closed the monitor at {Path}.");
            }

            _end += count;
            return true;
        }
        catch (SocketException e)
        {
            throw new MonitorException(MonitorException.Closed, $"The monitor at {Path} went away: {e.Message}", e);
        }
    }
}
