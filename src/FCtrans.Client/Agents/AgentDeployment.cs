using System.Text.RegularExpressions;

namespace FCtrans.Client;

/// <summary>
/// Sees to it that a host has exactly the agent that the module brings. Looks in one round trip; uploads only when the file is
/// missing or its SHA-256 differs: to a temporary name, checked there, then renamed, so that a running agent and two
/// concurrent uploads never meet half a file.
/// </summary>
internal static partial class AgentDeployment
{
    private static readonly TimeSpan s_uploadLimit = TimeSpan.FromMinutes(10);

    /// <summary>Returns the agent's path on the host.</summary>
    /// <param name="uploaded">Is told, on some thread, how much of the agent has gone, 0 to 1; not at all when it is there already.</param>
    /// <exception cref="FCtransException">HostUnsupported, AgentUploadFailed.</exception>
    public static async Task<string> EnsureAsync(
        SshSession session, KvmHostSettings settings, AgentPackage package, Action<double>? uploaded, CancellationToken cancellation)
    {
        // One line each: system, agent's path, SHA-256 of what lies there (or nothing). POSIX sh and coreutils or busybox only.
        string look =
            "if [ \"$(id -u)\" = 0 ]; then d=/var/lib/fctrans; else d=\"$HOME/.local/share/fctrans\"; fi; "
            + $"f=\"$d/agent/{package.DirectoryName}/fctrans-agent\"; uname -sm; echo \"$f\"; "
            + "if [ -x \"$f\" ]; then sha256sum < \"$f\"; fi";
        RemoteCommandResult seen = await session
            .RunAsync(InPosixShell(look, settings.Sudo), null, settings.Timeout, cancellation).ConfigureAwait(false);
        string[] lines = seen.Output.Split('\n', StringSplitOptions.TrimEntries);
        if (settings.Sudo && !seen.Succeeded && seen.Reason.Contains("sudo", StringComparison.Ordinal))
        {
            throw Failure.SudoRefused(settings.HostName, settings.UserName, Printable(seen.Reason));
        }

        if (!seen.Succeeded || lines.Length < 2)
        {
            throw Failure.AgentUploadFailed(settings.HostName, "the host could not be examined: " + seen.Reason);
        }

        if (lines[0] != "Linux x86_64")
        {
            throw Failure.HostUnsupported(settings.HostName, Printable(lines[0]));
        }

        string path = lines[1];
        if (!AgentPath().IsMatch(path))
        {
            throw Failure.AgentUploadFailed(settings.HostName, $"'{Printable(path)}' is no usable path for it");
        }

        if (lines.Length > 2 && lines[2].StartsWith(package.Sha256, StringComparison.Ordinal))
        {
            return path;
        }

        FileStream file;
        try
        {
            file = File.OpenRead(package.Path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Failure.AgentPackageMissing(package.Path);
        }

        await using (file.ConfigureAwait(false))
        {
            long length = file.Length;
            string directory = path[..path.LastIndexOf('/')];
            string upload =
                $"set -e; umask 022; mkdir -p '{directory}'; t=$(mktemp '{directory}/.upload.XXXXXX'); "
                + $"trap 'rm -f \"$t\"' EXIT; trap 'exit 1' HUP INT TERM; head -c {length} > \"$t\"; "
                + "s=$(sha256sum < \"$t\"); "
                + $"if [ \"${{s%% *}}\" != {package.Sha256} ]; then echo 'what arrived is not what was sent' >&2; exit 1; fi; "
                + $"chmod 755 \"$t\"; mv -f \"$t\" '{path}'";
            RemoteCommandResult sent = await session
                .RunAsync(InPosixShell(upload, settings.Sudo), file, s_uploadLimit, cancellation, sent => uploaded?.Invoke((double)sent / length))
                .ConfigureAwait(false);
            if (!sent.Succeeded)
            {
                throw Failure.AgentUploadFailed(settings.HostName, Printable(sent.Reason));
            }
        }

        return path;
    }

    /// <summary>What starts the agent's service. sudo clears the environment, so what sshd says of the connection is handed on.</summary>
    public static string StartCommand(string path, bool sudo) =>
        sudo ? $"exec sudo -n env SSH_CONNECTION=\"$SSH_CONNECTION\" '{path}' stdio" : $"exec '{path}' stdio";

    /// <summary>The user's log-in shell may be csh or fish; only quoting of a plain word is common to all.</summary>
    public static string InPosixShell(string script, bool sudo) => $"exec {(sudo ? "sudo -n " : "")}sh -c '" + script.Replace("'", "'\\''") + "'";

    /// <summary>What a host says goes to a terminal: no control characters, and not without end.</summary>
    internal static string Printable(string text)
    {
        string clean = string.Concat(text.Select(c => char.IsControl(c) && c != '\n' ? '?' : c));
        return clean.Length <= 500 ? clean : clean[..500] + "…";
    }

    [GeneratedRegex("^/[A-Za-z0-9._/@+-]{1,400}$")]
    private static partial Regex AgentPath();
}
