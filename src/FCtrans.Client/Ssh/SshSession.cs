using System.Net.Sockets;
using System.Text;
using Renci.SshNet;
using Renci.SshNet.Common;

namespace FCtrans.Client;

/// <summary>
/// One SSH connection to a host, with the host's key checked by us. Opened on first use and again when it has dropped.
/// Safe for use by several threads; owns the client.
/// </summary>
internal sealed class SshSession : IDisposable
{
    private static readonly string[] s_usualKeys = ["id_ed25519", "id_ecdsa", "id_rsa"];

    private const int SendBytes = 256 * 1024;

    private readonly KvmHostSettings _settings;
    private readonly SemaphoreSlim _opening = new(1, 1);
    private readonly SshSession? _jump;
    private SshClient? _client;
    private ForwardedPortLocal? _forward;
    private bool _disposed;

    public SshSession(KvmHostSettings settings)
    {
        _settings = settings;
        _jump = settings.Jump is null ? null : new SshSession(settings.Jump);
    }

    public bool IsConnected => _client is { IsConnected: true };

    /// <summary>The key that the host showed, as <c>SHA256:…</c>; empty before the first connection.</summary>
    public string HostKeyFingerprint { get; private set; } = "";

    /// <summary>The connected client.</summary>
    /// <exception cref="FCtransException">HostUnreachable, AuthenticationFailed, HostKey…, NoCredential, KeyFileUnusable.</exception>
    public async Task<SshClient> ClientAsync(CancellationToken cancellation)
    {
        if (_client is { IsConnected: true } ready)
        {
            return ready;
        }

        await _opening.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            if (_client is { IsConnected: true } meanwhile)
            {
                return meanwhile;
            }

            _client?.Dispose();
            _client = null;
            CloseForward();
            return _client = await OpenAsync(cancellation).ConfigureAwait(false);
        }
        finally
        {
            _opening.Release();
        }
    }

    /// <summary>Starts a command and gives its input and output.</summary>
    public async Task<SshCommandStream> StartAsync(string command, CancellationToken cancellation)
    {
        SshClient client = await ClientAsync(cancellation).ConfigureAwait(false);
        try
        {
            return await Task.Run(() => SshCommandStream.Start(client, command), cancellation).ConfigureAwait(false);
        }
        catch (Exception e) when (e is SshException or SocketException or InvalidOperationException)
        {
            throw Failure.ConnectionLost(_settings.HostName, e.Message, e);
        }
    }

    /// <summary>
    /// Runs a command to its end. <paramref name="input"/> goes to its standard input, whose end the command must know by itself
    /// (by its length, say): it is not told.
    /// </summary>
    /// <param name="sent">Is told, on some thread, how many bytes of the input have gone.</param>
    public async Task<RemoteCommandResult> RunAsync(
        string command, Stream? input, TimeSpan limit, CancellationToken cancellation, Action<long>? sent = null)
    {
        using var timeout = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        timeout.CancelAfter(limit);
        try
        {
            using SshCommandStream stream = await StartAsync(command, timeout.Token).ConfigureAwait(false);
            Task<string> output = ReadTextAsync(stream, timeout.Token);
            if (input is not null)
            {
                try
                {
                    await SendAsync(input, stream, sent, timeout.Token).ConfigureAwait(false);
                }
                catch (IOException)
                {
                    // The command ended early; its status and standard error say why.
                }
            }

            string text = "";
            try
            {
                text = await output.ConfigureAwait(false);
            }
            catch (IOException e)
            {
                throw Failure.ConnectionLost(_settings.HostName, e.Message, e);
            }

            int? status = await stream.WaitForExitAsync(TimeSpan.FromSeconds(5)).ConfigureAwait(false);
            return new RemoteCommandResult(status, text, stream.ErrorTail);
        }
        catch (OperationCanceledException e) when (!cancellation.IsCancellationRequested)
        {
            throw Failure.HostTimeout(_settings.HostName, "a command over SSH", limit, e);
        }
    }

    private static async Task SendAsync(Stream input, Stream command, Action<long>? sent, CancellationToken cancellation)
    {
        byte[] buffer = new byte[SendBytes];
        long all = 0;
        while (await input.ReadAsync(buffer, cancellation).ConfigureAwait(false) is > 0 and int count)
        {
            await command.WriteAsync(buffer.AsMemory(0, count), cancellation).ConfigureAwait(false);
            all += count;
            sent?.Invoke(all);
        }
    }

    public void Dispose()
    {
        _disposed = true;
        try
        {
            _client?.Dispose();
            CloseForward();
        }
        catch (Exception e) when (e is SshException or SocketException)
        {
            System.Diagnostics.Debug.WriteLine(e);
        }

        _jump?.Dispose();
    }

    private void CloseForward()
    {
        ForwardedPortLocal? forward = _forward;
        _forward = null;
        try
        {
            forward?.Dispose();
        }
        catch (Exception e) when (e is SshException or SocketException or ObjectDisposedException)
        {
            // The jump host's connection is gone, and the port with it.
            System.Diagnostics.Debug.WriteLine(e);
        }
    }

    private static async Task<string> ReadTextAsync(Stream stream, CancellationToken cancellation)
    {
        using var reader = new StreamReader(stream, Encoding.UTF8, false, 4096, leaveOpen: true);
        return await reader.ReadToEndAsync(cancellation).ConfigureAwait(false);
    }

    private async Task<SshClient> OpenAsync(CancellationToken cancellation)
    {
        string host = _settings.HostName;
        (string address, int port) = await ReachAsync(cancellation).ConfigureAwait(false);
        var info = new ConnectionInfo(address, port, _settings.UserName, Authentication()) { Timeout = _settings.Timeout };
        KnownHosts known = KnownHosts.Read(_settings);
        PreferKnownKeyTypes(info, known);

        var client = new SshClient(info) { KeepAliveInterval = TimeSpan.FromSeconds(15) };
        FCtransException? refusal = null;
        byte[]? checkedKey = null;
        client.HostKeyReceived += (_, e) =>
        {
            // Asked again at each renewal of the session's keys: the host must stay the one it was.
            refusal = checkedKey is not null && e.HostKey.AsSpan().SequenceEqual(checkedKey) ? null : CheckHostKey(known, e);
            checkedKey = refusal is null ? e.HostKey : null;
            e.CanTrust = refusal is null;
        };

        bool open = false;
        try
        {
            await client.ConnectAsync(cancellation).ConfigureAwait(false);
            open = true;
            return client;
        }
        catch (Exception) when (refusal is not null)
        {
            throw refusal;
        }
        catch (SshAuthenticationException e)
        {
            throw Failure.AuthenticationFailed(host, _settings.UserName, e.Message, e);
        }
        catch (Exception e) when (e is SshException or SocketException or ProxyException or IOException)
        {
            throw Failure.HostUnreachable(
                host, _settings.Port, _jumpFailure is { } why ? $"{e.Message} (through '{_settings.Jump!.HostName}': {why})" : e.Message, e);
        }
        finally
        {
            if (!open)
            {
                client.Dispose();
                CloseForward();
            }
        }
    }

    private volatile string? _jumpFailure;

    /// <summary>
    /// Where to connect: the host itself, or a loopback port of ours that the jump host carries on to it. Whoever else connects
    /// to that port meets the host's sshd, as from anywhere.
    /// </summary>
    private async Task<(string Address, int Port)> ReachAsync(CancellationToken cancellation)
    {
        if (_jump is null)
        {
            return (_settings.ConnectAddress, _settings.Port);
        }

        SshClient jump = await _jump.ClientAsync(cancellation).ConfigureAwait(false);
        var forward = new ForwardedPortLocal("127.0.0.1", 0, _settings.ConnectAddress, (uint)_settings.Port);
        _jumpFailure = null;
        forward.Exception += (_, e) => _jumpFailure = e.Exception.Message;
        try
        {
            jump.AddForwardedPort(forward);
            forward.Start();
        }
        catch (Exception e) when (e is SshException or SocketException or InvalidOperationException)
        {
            forward.Dispose();
            throw Failure.ConnectionLost(_settings.Jump!.HostName, e.Message, e);
        }

        _forward = forward;
        return ("127.0.0.1", (int)forward.BoundPort);
    }

    private FCtransException? CheckHostKey(KnownHosts known, HostKeyEventArgs e)
    {
        string host = _settings.HostName;
        string fingerprint = KnownHostsFile.Fingerprint(e.HostKey);
        string keyType = KeyTypeOf(e.HostKey);
        (HostKeyFinding finding, string path) = known.Find(_settings.KeyName, _settings.KeyPort, e.HostKey);
        string where = $"{path}, line {finding.Line}";
        bool named = _settings.AcceptedFingerprint == fingerprint;
        switch (finding.Status)
        {
            case HostKeyStatus.Known:
                break;
            case HostKeyStatus.Revoked:
                return Failure.HostKeyRevoked(host, fingerprint, where);
            case HostKeyStatus.Changed when !named:
                return Failure.HostKeyChanged(host, keyType, fingerprint, where);
            case HostKeyStatus.Unknown when !named && (!_settings.AcceptUnknownHostKey || _settings.AcceptedFingerprint is not null):
                return Failure.HostKeyUnknown(host, keyType, fingerprint, known.Paths);
            default:
                try
                {
                    KnownHostsFile.Replace(_settings.KnownHostsFile, _settings.KeyName, _settings.KeyPort, keyType, e.HostKey);
                }
                catch (FCtransException failure)
                {
                    return failure;
                }

                break;
        }

        HostKeyFingerprint = fingerprint;
        return null;
    }

    /// <summary>The type stands at the start of the key itself; the negotiated algorithm's name may differ (RSA).</summary>
    private static string KeyTypeOf(byte[] key)
    {
        int length = key.Length < 4 ? -1 : System.Buffers.Binary.BinaryPrimitives.ReadInt32BigEndian(key);
        return length is < 1 or > 64 || length > key.Length - 4 ? "unknown" : Encoding.ASCII.GetString(key, 4, length);
    }

    /// <summary>
    /// Asks first for the types of key that the file has, as ssh does: a host with several keys would else show one that
    /// the file does not name. Certificates are not asked for: there is no authority to check them against.
    /// </summary>
    private void PreferKnownKeyTypes(ConnectionInfo info, KnownHosts known)
    {
        foreach (string name in info.HostKeyAlgorithms.Keys.Where(k => k.Contains("-cert-", StringComparison.Ordinal)).ToArray())
        {
            info.HostKeyAlgorithms.Remove(name);
        }

        foreach (string type in known.KeyTypes(_settings.KeyName, _settings.KeyPort).Reverse())
        {
            string[] names = type == "ssh-rsa" ? ["ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"] : [type];
            foreach (string name in names)
            {
                if (info.HostKeyAlgorithms.ContainsKey(name))
                {
                    info.HostKeyAlgorithms.SetPosition(name, 0);
                }
            }
        }
    }

    private AuthenticationMethod[] Authentication()
    {
        string user = _settings.UserName;
        string? password = _settings.Password;
        if (_settings.KeyFile is { } keyFile)
        {
            return [new PrivateKeyAuthenticationMethod(user, LoadKey(keyFile, password))];
        }

        if (password is not null)
        {
            var interactive = new KeyboardInteractiveAuthenticationMethod(user);
            interactive.AuthenticationPrompt += (_, e) =>
            {
                foreach (AuthenticationPrompt prompt in e.Prompts)
                {
                    prompt.Response = password;
                }
            };
            return [new PasswordAuthenticationMethod(user, password), interactive];
        }

        return [new PrivateKeyAuthenticationMethod(user, FindKeys())];
    }

    /// <summary>In ssh's order: the configured identities, the agent's keys, the usual files. sshd allows a few tries only.</summary>
    private IPrivateKeySource[] FindKeys()
    {
        var keys = new List<IPrivateKeySource>();
        FCtransException? unusable = null;
        var agent = SshAgent.Find(_settings.IdentityAgent);
        IReadOnlyList<AgentKey> held = agent?.Keys() ?? [];
        foreach (string path in _settings.IdentityFiles)
        {
            // An agent may hold the key of which only the public half can be read here.
            if (HeldBy(held, path) is { } same)
            {
                keys.Add(same);
            }
            else if (File.Exists(path))
            {
                TryAdd(path);
            }
        }

        if (!_settings.IdentitiesOnly)
        {
            keys.AddRange(held.Where(h => !keys.Contains(h)));
        }

        string directory = Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".ssh");
        string[] usual = [.. s_usualKeys.Select(name => Path.Combine(directory, name))];
        if (_settings.IdentityFiles.Count == 0)
        {
            foreach (string path in usual.Where(p => File.Exists(p) && HeldBy(held, p) is null))
            {
                TryAdd(path);
            }
        }

        return keys.Count > 0 ? [.. keys] : throw unusable ?? Failure.NoCredential(
            _settings.HostName,
            string.Join(", ", _settings.IdentityFiles.Count > 0 ? _settings.IdentityFiles : usual)
            + (agent is null ? "; no SSH agent is running" : "; the SSH agent has none"));

        void TryAdd(string path)
        {
            try
            {
                keys.Add(LoadKey(path, null));
            }
            catch (FCtransException e)
            {
                unusable ??= e;
            }
        }
    }

    /// <summary>The agent's key whose public half lies beside the file.</summary>
    private static AgentKey? HeldBy(IReadOnlyList<AgentKey> held, string path)
    {
        string publicPath = path.EndsWith(".pub", StringComparison.Ordinal) ? path : path + ".pub";
        if (held.Count == 0 || !File.Exists(publicPath))
        {
            return null;
        }

        try
        {
            string[] words = File.ReadAllText(publicPath).Split(' ', StringSplitOptions.RemoveEmptyEntries);
            byte[] blob = words.Length > 1 ? Convert.FromBase64String(words[1].Trim()) : [];
            return held.FirstOrDefault(k => k.Blob.AsSpan().SequenceEqual(blob));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or FormatException)
        {
            return null;
        }
    }

    private static PrivateKeyFile LoadKey(string path, string? passphrase)
    {
        try
        {
            return passphrase is null ? new PrivateKeyFile(path) : new PrivateKeyFile(path, passphrase);
        }
        catch (Exception e) when (e is SshException or IOException or UnauthorizedAccessException or FormatException
            or InvalidOperationException or ArgumentException or NotSupportedException
            or System.Security.Cryptography.CryptographicException)
        {
            throw Failure.KeyFileUnusable(path, e.Message, e);
        }
    }
}
