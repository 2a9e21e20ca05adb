namespace FCtrans.Client;

/// <summary>Where ssh keeps its files: the user's, and those of the whole system, which speak last.</summary>
public static class SshPaths
{
    /// <summary>The user's own: ~/.ssh.</summary>
    public static string UserDirectory => Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".ssh");

    /// <summary>The system's: /etc/ssh.</summary>
    public static string SystemDirectory => OperatingSystem.IsWindows()
        ? Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.CommonApplicationData), "ssh") : "/etc/ssh";

    /// <summary>The known-hosts files of the user unless the configuration names others (UserKnownHostsFile). The first is written to.</summary>
    public static IReadOnlyList<string> UserKnownHosts => [Path.Combine(UserDirectory, "known_hosts"), Path.Combine(UserDirectory, "known_hosts2")];

    /// <summary>Those of the system unless the configuration names others (GlobalKnownHostsFile). Never written to.</summary>
    public static IReadOnlyList<string> SystemKnownHosts =>
        [Path.Combine(SystemDirectory, "ssh_known_hosts"), Path.Combine(SystemDirectory, "ssh_known_hosts2")];
}
