namespace FCtrans.Client;

/// <summary>What an SSH configuration says of one host; null or empty where it says nothing.</summary>
public sealed record SshHostConfig
{
    /// <summary>The name or address to connect to.</summary>
    public string? HostName { get; init; }

    /// <summary>The user on the host.</summary>
    public string? User { get; init; }

    /// <summary>The port of sshd.</summary>
    public int? Port { get; init; }

    /// <summary>Private keys, in order.</summary>
    public IReadOnlyList<string> IdentityFiles { get; init; } = [];

    /// <summary>Use no other keys than those, though an agent may hold them.</summary>
    public bool IdentitiesOnly { get; init; }

    /// <summary>The agent's socket, <c>none</c>, or <c>SSH_AUTH_SOCK</c>.</summary>
    public string? IdentityAgent { get; init; }

    /// <summary>Hosts to go through: <c>[user@]host[:port]</c>, separated by commas.</summary>
    public string? ProxyJump { get; init; }

    /// <summary>The user's files that host keys are checked against; the first is written to.</summary>
    public IReadOnlyList<string>? UserKnownHostsFiles { get; init; }

    /// <summary>The system's files that host keys are checked against.</summary>
    public IReadOnlyList<string>? SystemKnownHostsFiles { get; init; }

    /// <summary>The name under which the host's key is looked up.</summary>
    public string? HostKeyAlias { get; init; }

    /// <summary>StrictHostKeyChecking accept-new.</summary>
    public bool AcceptNewHostKey { get; init; }
}
