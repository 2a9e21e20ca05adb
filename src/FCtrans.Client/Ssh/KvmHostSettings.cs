namespace FCtrans.Client;

/// <summary>How to reach a host and who to be there.</summary>
public sealed record KvmHostSettings
{
    /// <summary>The host's name or address as the user gave it.</summary>
    public required string HostName { get; init; }

    /// <summary>The name or address to connect to; null: <see cref="HostName"/>.</summary>
    public string? Address { get; init; }

    /// <summary>The name under which the host's key is known; null: the address.</summary>
    public string? HostKeyName { get; init; }

    /// <summary>The host to go through; null: none.</summary>
    public KvmHostSettings? Jump { get; init; }

    /// <summary>Start the agent by sudo, for a user who is not root.</summary>
    public bool Sudo { get; init; }

    /// <summary>What the user calls it; null: its host name.</summary>
    public string? Name { get; init; }

    /// <summary>The port of its sshd.</summary>
    public int Port { get; init; } = 22;

    /// <summary>The user to log on as.</summary>
    public string UserName { get; init; } = "root";

    /// <summary>A private key; null: those of the configuration, of the SSH agent, and the usual ones in ~/.ssh.</summary>
    public string? KeyFile { get; init; }

    /// <summary>Private keys that the SSH configuration names for the host.</summary>
    public IReadOnlyList<string> IdentityFiles { get; init; } = [];

    /// <summary>Use only the keys that the configuration names.</summary>
    public bool IdentitiesOnly { get; init; }

    /// <summary>The SSH agent's socket, or <c>none</c>; null: the one of this session.</summary>
    public string? IdentityAgent { get; init; }

    /// <summary>The user's password, or the passphrase of the key when <see cref="KeyFile"/> is given.</summary>
    public string? Password { get; init; }

    /// <summary>The file that host keys are checked against and remembered in; empty: none.</summary>
    public string KnownHostsFile { get; init; } = SshPaths.UserKnownHosts[0];

    /// <summary>Further files that host keys are checked against; never written to.</summary>
    public IReadOnlyList<string> MoreKnownHostsFiles { get; init; } = [];

    /// <summary>Accept and remember the key of a host that the file does not name.</summary>
    public bool AcceptUnknownHostKey { get; init; }

    /// <summary>Accept and remember exactly this key (<c>SHA256:…</c>), even in place of another.</summary>
    public string? AcceptedFingerprint { get; init; }

    /// <summary>The IP address that other hosts send guest memory to; null: the address it has on the SSH connection.</summary>
    public string? DataAddress { get; init; }

    internal string ConnectAddress => Address ?? HostName;

    internal string KeyName => HostKeyName ?? ConnectAddress;

    /// <summary>HostKeyAlias has no port to it.</summary>
    internal int KeyPort => HostKeyName is null ? Port : 22;

    /// <summary>How long to wait for the connection, and for a short answer.</summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(20);
}
