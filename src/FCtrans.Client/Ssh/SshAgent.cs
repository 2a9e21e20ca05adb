using System.Buffers.Binary;
using System.IO.Pipes;
using System.Net.Sockets;
using System.Text;
using Renci.SshNet;
using Renci.SshNet.Security;

namespace FCtrans.Client;

/// <summary>
/// A client of an SSH agent (OpenSSH's PROTOCOL.agent; draft-miller-ssh-agent): lists its keys and has it sign. One connection for
/// each request, so that nothing stays open. The agent's answers are bounded; nothing in them is trusted further than a signature.
/// </summary>
internal sealed class SshAgent
{
    private const int MaximumAnswer = 256 * 1024;
    private const int MaximumKeys = 256;
    private const byte RequestIdentities = 11;
    private const byte IdentitiesAnswer = 12;
    private const byte SignRequest = 13;
    private const byte SignResponse = 14;

    // Asking a person (a touch of a token, a dialogue) takes a while.
    private static readonly TimeSpan s_signLimit = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan s_listLimit = TimeSpan.FromSeconds(5);

    private readonly string _path;

    private SshAgent(string path) => _path = path;

    /// <summary>The agent to use; null when there is none.</summary>
    /// <param name="configured">IdentityAgent of the configuration.</param>
    public static SshAgent? Find(string? configured)
    {
        string? path = configured is null or "SSH_AUTH_SOCK" ? Environment.GetEnvironmentVariable("SSH_AUTH_SOCK")
            : configured.StartsWith('$') ? Environment.GetEnvironmentVariable(configured.Trim('$', '{', '}')) : configured;
        if (string.IsNullOrEmpty(path) && OperatingSystem.IsWindows())
        {
            path = @"\\.\pipe\openssh-ssh-agent";
        }

        return string.IsNullOrEmpty(path) || path.Equals("none", StringComparison.OrdinalIgnoreCase)
            || (!path.StartsWith(@"\\.\pipe\", StringComparison.Ordinal) && !File.Exists(path)) ? null : new SshAgent(path);
    }

    /// <summary>The agent's keys that SSH.NET can use; none when it does not answer.</summary>
    public IReadOnlyList<AgentKey> Keys()
    {
        try
        {
            byte[] answer = Ask([RequestIdentities], s_listLimit);
            if (answer.Length < 5 || answer[0] != IdentitiesAnswer)
            {
                return [];
            }

            uint count = BinaryPrimitives.ReadUInt32BigEndian(answer.AsSpan(1));
            var keys = new List<AgentKey>();
            ReadOnlySpan<byte> rest = answer.AsSpan(5);
            for (uint i = 0; i < count && i < MaximumKeys; i++)
            {
                byte[] blob = Take(ref rest).ToArray();
                string comment = Encoding.UTF8.GetString(Take(ref rest));
                ReadOnlySpan<byte> inside = blob;
                keys.Add(new AgentKey(this, blob, Encoding.ASCII.GetString(Take(ref inside)), comment));
            }

            return keys;
        }
        catch (Exception e) when (e is IOException or SocketException or TimeoutException or InvalidDataException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    /// <summary>A signature in SSH's format: the algorithm's name and the signature proper.</summary>
    /// <exception cref="IOException">The agent refused, or went away.</exception>
    public byte[] Sign(byte[] key, byte[] data, uint flags)
    {
        byte[] request = new byte[1 + 4 + key.Length + 4 + data.Length + 4];
        request[0] = SignRequest;
        Span<byte> at = request.AsSpan(1);
        Put(ref at, key);
        Put(ref at, data);
        BinaryPrimitives.WriteUInt32BigEndian(at, flags);
        try
        {
            byte[] answer = Ask(request, s_signLimit);
            if (answer.Length == 0 || answer[0] != SignResponse)
            {
                throw new IOException("The SSH agent refused to sign.");
            }

            ReadOnlySpan<byte> rest = answer.AsSpan(1);
            return Take(ref rest).ToArray();
        }
        catch (Exception e) when (e is SocketException or TimeoutException or InvalidDataException)
        {
            throw new IOException($"The SSH agent did not sign: {e.Message}", e);
        }
    }

    private static void Put(ref Span<byte> at, byte[] text)
    {
        BinaryPrimitives.WriteUInt32BigEndian(at, (uint)text.Length);
        text.CopyTo(at[4..]);
        at = at[(4 + text.Length)..];
    }

    private static ReadOnlySpan<byte> Take(ref ReadOnlySpan<byte> from)
    {
        uint length = from.Length < 4 ? uint.MaxValue : BinaryPrimitives.ReadUInt32BigEndian(from);
        if (length > from.Length - 4)
        {
            throw new InvalidDataException("The SSH agent's answer is cut short.");
        }

        ReadOnlySpan<byte> taken = from.Slice(4, (int)length);
        from = from[(4 + (int)length)..];
        return taken;
    }

    private byte[] Ask(byte[] request, TimeSpan limit)
    {
        using Stream stream = Connect(limit);
        byte[] length = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(length, (uint)request.Length);
        stream.Write(length);
        stream.Write(request);
        stream.Flush();
        stream.ReadExactly(length);
        uint size = BinaryPrimitives.ReadUInt32BigEndian(length);
        if (size is 0 or > MaximumAnswer)
        {
            throw new InvalidDataException("The SSH agent's answer has an impossible length.");
        }

        byte[] answer = new byte[size];
        stream.ReadExactly(answer);
        return answer;
    }

    private Stream Connect(TimeSpan limit)
    {
        const string pipes = @"\\.\pipe\";
        if (_path.StartsWith(pipes, StringComparison.Ordinal))
        {
            var pipe = new NamedPipeClientStream(".", _path[pipes.Length..], PipeDirection.InOut);
            pipe.Connect((int)s_listLimit.TotalMilliseconds);
            return pipe;
        }

        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
        {
            ReceiveTimeout = (int)limit.TotalMilliseconds,
            SendTimeout = (int)limit.TotalMilliseconds,
        };
        try
        {
            socket.Connect(new UnixDomainSocketEndPoint(_path));
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}

/// <summary>A key that an SSH agent holds, as SSH.NET takes keys.</summary>
internal sealed class AgentKey(SshAgent agent, byte[] blob, string type, string comment) : IPrivateKeySource
{
    // draft-miller-ssh-agent: which hash an RSA signature is made with.
    private const uint RsaSha256 = 2;
    private const uint RsaSha512 = 4;

    /// <summary>The public key in SSH's format.</summary>
    public byte[] Blob => blob;

    /// <summary>What the agent calls it.</summary>
    public string Comment => comment;

    public IReadOnlyCollection<HostAlgorithm> HostKeyAlgorithms => type == "ssh-rsa"
        ? [new Algorithm("rsa-sha2-512", this, RsaSha512), new Algorithm("rsa-sha2-256", this, RsaSha256)]
        : [new Algorithm(type, this, 0)];

    private byte[] Sign(byte[] data, uint flags) => agent.Sign(blob, data, flags);

    private sealed class Algorithm(string name, AgentKey key, uint flags) : HostAlgorithm(name)
    {
        public override byte[] Data => key.Blob;

        public override byte[] Sign(byte[] data) => key.Sign(data, flags);

        public override bool VerifySignature(byte[] data, byte[] signature) => false;
    }
}
