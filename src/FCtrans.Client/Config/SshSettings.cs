using System.Globalization;

namespace FCtrans.Client;

/// <summary>Joins what the user typed with what the SSH configuration says: what was typed comes first.</summary>
public static class SshSettings
{
    private const int MostJumps = 8;

    /// <summary>How to reach the host.</summary>
    /// <param name="typed">HostName as typed; Port, UserName and the files only where the user gave them (0, empty).</param>
    /// <param name="config">The configuration.</param>
    /// <exception cref="FCtransException">SshConfigUnusable.</exception>
    public static KvmHostSettings Resolve(KvmHostSettings typed, SshConfigFile config) => Resolve(typed, config, 0);

    private static KvmHostSettings Resolve(KvmHostSettings typed, SshConfigFile config, int depth)
    {
        SshHostConfig found = config.Find(typed.HostName);
        IReadOnlyList<string> user = found.UserKnownHostsFiles ?? SshPaths.UserKnownHosts;
        IReadOnlyList<string> system = found.SystemKnownHostsFiles ?? SshPaths.SystemKnownHosts;
        return typed with
        {
            Address = found.HostName ?? typed.HostName,
            HostKeyName = found.HostKeyAlias,
            Port = typed.Port > 0 ? typed.Port : found.Port ?? 22,
            UserName = typed.UserName.Length > 0 ? typed.UserName : found.User ?? "root",
            KnownHostsFile = typed.KnownHostsFile.Length > 0 ? typed.KnownHostsFile : user.FirstOrDefault(""),
            MoreKnownHostsFiles = typed.KnownHostsFile.Length > 0 ? [] : [.. user.Skip(1), .. system],
            AcceptUnknownHostKey = typed.AcceptUnknownHostKey || found.AcceptNewHostKey,
            IdentityFiles = found.IdentityFiles,
            IdentitiesOnly = found.IdentitiesOnly,
            IdentityAgent = found.IdentityAgent,
            Jump = found.ProxyJump is { } jump ? Jump(jump, typed, config, depth) : null,
        };
    }

    /// <summary>The last of the hosts named is the one next to ours; it is reached through those before it.</summary>
    private static KvmHostSettings Jump(string text, KvmHostSettings typed, SshConfigFile config, int depth)
    {
        string[] hops = text.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
        if (depth + hops.Length > MostJumps)
        {
            throw Failure.SshConfigUnusable("ProxyJump", $"'{typed.HostName}' is behind more than {MostJumps} jumps");
        }

        KvmHostSettings? result = null;
        foreach (string hop in hops)
        {
            KvmHostSettings settings = Resolve(Hop(hop, typed), config, depth + hops.Length);
            result = result is null ? settings : settings with { Jump = result };
        }

        return result ?? throw Failure.SshConfigUnusable("ProxyJump", $"'{text}' names no host");
    }

    private static KvmHostSettings Hop(string text, KvmHostSettings typed)
    {
        string rest = text.StartsWith("ssh://", StringComparison.Ordinal) ? text[6..].TrimEnd('/') : text;
        string user = "";
        int at = rest.LastIndexOf('@');
        if (at >= 0)
        {
            (user, rest) = (rest[..at], rest[(at + 1)..]);
        }

        int port = 0;
        int close = rest.StartsWith('[') ? rest.IndexOf(']') : -1;
        int colon = close >= 0 ? rest.IndexOf(':', close) : rest.LastIndexOf(':');

        // More than one colon without brackets is an IPv6 address.
        if (colon > 0 && (close >= 0 || rest.IndexOf(':') == colon)
            && (!int.TryParse(rest.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out port) || port is < 1 or > 65535))
        {
            throw Failure.SshConfigUnusable("ProxyJump", $"'{text}' has no usable port");
        }

        string host = close >= 0 ? rest[1..close] : port > 0 ? rest[..colon] : rest;
        return new KvmHostSettings
        {
            HostName = host,
            Port = port,
            UserName = user,
            KnownHostsFile = typed.KnownHostsFile,
            AcceptUnknownHostKey = typed.AcceptUnknownHostKey,
            KeyFile = typed.KeyFile,
            Password = typed.KeyFile is null ? null : typed.Password,
            Timeout = typed.Timeout,
        };
    }
}
