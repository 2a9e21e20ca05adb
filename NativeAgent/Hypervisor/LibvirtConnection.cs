using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;

namespace FCtrans.Agent.Hypervisor;

/// <summary>libvirt refused, or went away.</summary>
internal sealed class LibvirtException(string message, Exception? cause = null) : IOException(message, cause)
{
    /// <summary>VIR_ERR_…; 0 when the connection broke.</summary>
    public int Code { get; init; }

    /// <summary>VIR_ERR_NO_DOMAIN.</summary>
    public const int NoDomain = 42;
}

/// <summary>A domain as libvirt's protocol names it.</summary>
internal sealed record LibvirtDomain(string Name, byte[] Uuid, int Id);

/// <summary>
/// libvirt's own protocol over its local socket: XDR (RFC 4506) in packets with a length, as virsh speaks it. virsh itself would be
/// a process for each command, which a switch-over of milliseconds can't wait for. Owns the connection; one thread at a time.
/// Sources: src/remote/remote_protocol.x, qemu_protocol.x and src/rpc/virnetprotocol.x of libvirt, whose numbers never change.
/// </summary>
internal sealed class LibvirtConnection : IDisposable
{
    private const uint RemoteProgram = 0x20008086;
    private const uint QemuProgram = 0x20008087;
    private const int MaximumPacketBytes = 32 << 20;

    private static readonly string[] s_sockets = ["/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock", "/var/run/libvirt/libvirt-sock"];
    private static readonly TimeSpan s_timeout = TimeSpan.FromSeconds(60);

    private readonly Socket _socket;
    private uint _serial;

    private LibvirtConnection(Socket socket) => _socket = socket;

    private enum Procedure
    {
        Open = 1,
        CreateXml = 10,
        DefineXml = 11,
        Destroy = 12,
        GetXml = 14,
        LookupByName = 23,
        LookupByUuid = 24,
        Resume = 28,
        AuthList = 66,
        IsPersistent = 151,
        GetLibVersion = 157,
        UndefineFlags = 231,
    }

    /// <summary>Where the daemon for QEMU listens; null when none does.</summary>
    public static string? SocketPath() => s_sockets.FirstOrDefault(File.Exists);

    /// <summary>Connects to the system's QEMU driver.</summary>
    /// <exception cref="LibvirtException">There is none, or it refuses this user.</exception>
    public static LibvirtConnection Open()
    {
        string path = SocketPath() ?? throw new LibvirtException("libvirt's daemon does not run on this host.");
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
        {
            ReceiveTimeout = (int)s_timeout.TotalMilliseconds,
            SendTimeout = (int)s_timeout.TotalMilliseconds,
        };
        var connection = new LibvirtConnection(socket);
        try
        {
            socket.Connect(new UnixDomainSocketEndPoint(path));
            var kinds = new XdrReader(connection.Call(RemoteProgram, (int)Procedure.AuthList, new XdrWriter()));
            int count = kinds.Int();
            bool open = count == 0;
            for (int i = 0; i < count && i < 20; i++)
            {
                open |= kinds.Int() == 0;
            }

            if (!open)
            {
                throw new LibvirtException("libvirt asks this user to authenticate. Connect as root, or with -Sudo.");
            }

            connection.Call(RemoteProgram, (int)Procedure.Open, new XdrWriter().Int(1).String("qemu:///system").Int(0));
            return connection;
        }
        catch (SocketException e)
        {
            connection.Dispose();
            throw new LibvirtException($"libvirt's daemon does not answer at {path}: {e.Message}", e);
        }
        catch
        {
            connection.Dispose();
            throw;
        }
    }

    /// <summary>Such as <c>9.0.0</c>.</summary>
    public string Version()
    {
        ulong version = new XdrReader(Call(RemoteProgram, (int)Procedure.GetLibVersion, new XdrWriter())).Hyper();
        return $"{version / 1_000_000}.{version / 1000 % 1000}.{version % 1000}";
    }

    /// <exception cref="LibvirtException">There is no such domain.</exception>
    public LibvirtDomain FindByUuid(Guid uuid) => new XdrReader(Call(
        RemoteProgram, (int)Procedure.LookupByUuid, new XdrWriter().Fixed(uuid.ToByteArray(bigEndian: true)))).Domain();

    /// <exception cref="LibvirtException">There is no such domain.</exception>
    public LibvirtDomain FindByName(string name) =>
        new XdrReader(Call(RemoteProgram, (int)Procedure.LookupByName, new XdrWriter().String(name))).Domain();

    /// <summary>The running domain's description, with its addresses, as another host is to have it.</summary>
    public string GetXml(LibvirtDomain domain)
    {
        const int secure = 1;
        const int migratable = 8;
        return new XdrReader(Call(RemoteProgram, (int)Procedure.GetXml, new XdrWriter().Domain(domain).Int(secure | migratable))).String();
    }

    /// <summary>The description that libvirt keeps of a persistent domain.</summary>
    public string GetPersistentXml(LibvirtDomain domain)
    {
        const int secure = 1;
        const int inactive = 2;
        return new XdrReader(Call(RemoteProgram, (int)Procedure.GetXml, new XdrWriter().Domain(domain).Int(secure | inactive))).String();
    }

    public bool IsPersistent(LibvirtDomain domain) =>
        new XdrReader(Call(RemoteProgram, (int)Procedure.IsPersistent, new XdrWriter().Domain(domain))).Int() != 0;

    /// <summary>Starts a transient domain whose CPUs stand still.</summary>
    public LibvirtDomain CreatePaused(string xml)
    {
        const int paused = 1;
        return new XdrReader(Call(RemoteProgram, (int)Procedure.CreateXml, new XdrWriter().String(xml).Int(paused))).Domain();
    }

    /// <summary>Keeps a description; a running domain of the same UUID becomes persistent.</summary>
    public LibvirtDomain Define(string xml) =>
        new XdrReader(Call(RemoteProgram, (int)Procedure.DefineXml, new XdrWriter().String(xml))).Domain();

    /// <summary>Forgets the description of a domain and keeps its firmware's variables.</summary>
    public void Undefine(LibvirtDomain domain)
    {
        const int keepNvram = 8;
        Call(RemoteProgram, (int)Procedure.UndefineFlags, new XdrWriter().Domain(domain).Int(keepNvram));
    }

    public void Resume(LibvirtDomain domain) => Call(RemoteProgram, (int)Procedure.Resume, new XdrWriter().Domain(domain));

    /// <summary>Ends the domain's QEMU at once.</summary>
    public void Destroy(LibvirtDomain domain) => Call(RemoteProgram, (int)Procedure.Destroy, new XdrWriter().Domain(domain));

    /// <summary>Sends a command to the domain's QEMU; its answer as it is.</summary>
    public string MonitorCommand(LibvirtDomain domain, string json)
    {
        const int domainMonitorCommand = 1;
        return new XdrReader(Call(QemuProgram, domainMonitorCommand, new XdrWriter().Domain(domain).String(json).Int(0))).String();
    }

    public void Dispose() => _socket.Dispose();

    /// <summary>A packet: length, program, version, procedure, type, serial, status, then the arguments or the result.</summary>
    private byte[] Call(uint program, int procedure, XdrWriter arguments)
    {
        const int header = 28;
        uint serial = ++_serial;
        byte[] body = arguments.ToArray();
        byte[] packet = new byte[header + body.Length];
        uint[] words = [(uint)packet.Length, program, 1, (uint)procedure, 0, serial, 0];
        for (int i = 0; i < words.Length; i++)
        {
            BinaryPrimitives.WriteUInt32BigEndian(packet.AsSpan(4 * i), words[i]);
        }

        body.CopyTo(packet, header);
        try
        {
            for (ReadOnlySpan<byte> left = packet; left.Length > 0;)
            {
                left = left[_socket.Send(left)..];
            }

            while (true)
            {
                byte[] answer = Receive();
                var reader = new XdrReader(answer);
                uint answered = (uint)reader.Int();
                reader.Int();
                uint answeredProcedure = (uint)reader.Int();
                int type = reader.Int();
                uint answeredSerial = (uint)reader.Int();
                int status = reader.Int();
                if (type != 1 || answeredSerial != serial || answeredProcedure != (uint)procedure || answered != program)
                {
                    // An event, or a keep-alive that was not asked for.
                    continue;
                }

                return status == 0 ? reader.Rest() : throw Error(reader);
            }
        }
        catch (SocketException e)
        {
            throw new LibvirtException($"libvirt's daemon went away: {e.Message}", e);
        }
    }

    private static LibvirtException Error(XdrReader reader)
    {
        int code = reader.Int();
        reader.Int();
        string message = reader.Int() != 0 ? reader.String() : "it gave no reason";
        return new LibvirtException($"libvirt: {message}.") { Code = code };
    }

    private byte[] Receive()
    {
        byte[] word = new byte[4];
        Fill(word);
        int length = BinaryPrimitives.ReadInt32BigEndian(word);
        if (length is < 28 or > MaximumPacketBytes)
        {
            throw new LibvirtException("libvirt's daemon sent a packet of an impossible length.");
        }

        byte[] packet = new byte[length - 4];
        Fill(packet);
        return packet;
    }

    private void Fill(Span<byte> buffer)
    {
        while (buffer.Length > 0)
        {
            int count = _socket.Receive(buffer);
            if (count == 0)
            {
                throw new LibvirtException("libvirt's daemon closed the connection.");
            }

            buffer = buffer[count..];
        }
    }
}

/// <summary>Writes XDR: words of four bytes, the highest first; texts with their length, padded to words.</summary>
internal sealed class XdrWriter
{
    private readonly MemoryStream _stream = new();

    public XdrWriter Int(int value)
    {
        Span<byte> word = stackalloc byte[4];
        BinaryPrimitives.WriteInt32BigEndian(word, value);
        _stream.Write(word);
        return this;
    }

    public XdrWriter Fixed(ReadOnlySpan<byte> bytes)
    {
        _stream.Write(bytes);
        for (int i = bytes.Length; i % 4 != 0; i++)
        {
            _stream.WriteByte(0);
        }

        return this;
    }

    public XdrWriter String(string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        return Int(bytes.Length).Fixed(bytes);
    }

    public XdrWriter Domain(LibvirtDomain domain) => String(domain.Name).Fixed(domain.Uuid).Int(domain.Id);

    public byte[] ToArray() => _stream.ToArray();
}

/// <summary>Reads XDR; what is cut short is an error.</summary>
internal ref struct XdrReader(ReadOnlySpan<byte> data)
{
    private ReadOnlySpan<byte> _left = data;

    public int Int() => BinaryPrimitives.ReadInt32BigEndian(Take(4));

    public ulong Hyper() => BinaryPrimitives.ReadUInt64BigEndian(Take(8));

    public string String()
    {
        int length = Int();
        if (length < 0 || length > _left.Length)
        {
            throw new LibvirtException("libvirt's daemon sent a text that is cut short.");
        }

        string text = Encoding.UTF8.GetString(_left[..length]);
        Take(Math.Min(_left.Length, (length + 3) & ~3));
        return text;
    }

    public LibvirtDomain Domain() => new(String(), Take(16).ToArray(), Int());

    public byte[] Rest() => _left.ToArray();

    private ReadOnlySpan<byte> Take(int count)
    {
        if (count > _left.Length)
        {
            throw new LibvirtException("libvirt's daemon sent an answer that is cut short.");
        }

        var taken = _left[..count];
        _left = _left[count..];
        return taken;
    }
}
