namespace FCtrans.Client;

/// <summary>How to reach a host and who to be there.</summary>
public sealed record KvmHostSettings
{
    /// <summary>The host's name or address.</summary>
    public required string HostName { get; init; }

    /// <summary>What the user calls it; null: its host name.</summary>
    public string? Name { get; init; }

    /// <summary>The port of its sshd.</summary>
    public int Port { get; init; } = 22;

    /// <summary>The user to log on as.</summary>
    public string UserName { get; init; } = "root";

    /// <summary>A private key; null: the usual ones in ~/.ssh, unless a password is given.</summary>
    public string? KeyFile { get; init; }

    /// <summary>The user's password, or the passphrase of the key when <see cref="KeyFile"/> is given.</summary>
    public string? Password { get; init; }

    /// <summary>The file that host keys are checked against.</summary>
    public string KnownHostsFile { get; init; } = Client.KnownHostsFile.DefaultPath;

    /// <summary>Accept and remember the key of a host that the file does not name.</summary>
    public bool AcceptUnknownHostKey { get; init; }

    /// <summary>Accept and remember exactly this key (<c>SHA256:…</c>), even in place of another.</summary>
    public string? AcceptedFingerprint { get; init; }

    /// <summary>The IP address that other hosts send guest memory to; null: the address it has on the SSH connection.</summary>
    public string? DataAddress { get; init; }

    /// <summary>How long to wait for the connection, and for a short answer.</summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(20);
}
