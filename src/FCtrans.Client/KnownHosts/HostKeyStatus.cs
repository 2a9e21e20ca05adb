namespace FCtrans.Client;

/// <summary>What a known-hosts file says of the key that a host shows.</summary>
public enum HostKeyStatus
{
    /// <summary>No line names the host.</summary>
    Unknown,

    /// <summary>A line names the host and has this key.</summary>
    Known,

    /// <summary>Lines name the host, none has this key.</summary>
    Changed,

    /// <summary>A line says that this key must not be trusted.</summary>
    Revoked,
}

/// <summary>The status of a key and the line that decided it (1-based; 0 when none did).</summary>
public readonly record struct HostKeyFinding(HostKeyStatus Status, int Line);
