namespace FCtrans.Agent.Hypervisor;

/// <summary>
/// Whether a tmpfs gives huge pages to the files in it. That is its mount's own option <c>huge=</c> (tmpfs(5)). The switch in /sys governs
/// mounts of the kernel's own (memfds, System V shared memory) and reaches all others by two of its values only: <c>deny</c> and
/// <c>force</c> (Documentation/admin-guide/mm/transhuge.rst).
/// </summary>
internal static class TmpfsHugePages
{
    public const string SwitchPath = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

    /// <param name="switchText">What <see cref="SwitchPath"/> says: all values, the chosen one in brackets; empty: the kernel has none.</param>
    /// <param name="mountInfo">What /proc/self/mountinfo says.</param>
    /// <param name="directory">The mount's directory.</param>
    /// <returns>Whether files get huge pages without asking for them, what was seen, and what to do about it.</returns>
    public static (bool Given, string Detail, string Remedy) Look(string switchText, string mountInfo, string directory)
    {
        int open = switchText.IndexOf('[', StringComparison.Ordinal);
        int close = switchText.IndexOf(']', StringComparison.Ordinal);
        string everywhere = open >= 0 && close > open ? switchText[(open + 1)..close] : "";
        string mounted = OptionOf(mountInfo, directory);
        return everywhere switch
        {
            "" => (false, "The kernel has none for tmpfs.", ""),
            "deny" => (false, "Transparent huge pages are denied to every tmpfs.", ""),
            "force" => (true, "Transparent huge pages are forced on every tmpfs.", $"echo never >{SwitchPath}"),
            _ => (mounted is "always" or "within_size", $"{directory} is mounted with huge={mounted}.", $"mount -o remount,huge=never {directory}"),
        };
    }

    /// <summary>The option of the mount that is on top at the directory: the last one listed. never: it has none, as by default.</summary>
    private static string OptionOf(string mountInfo, string directory)
    {
        const string Key = "huge=";
        string found = "never";
        foreach (string line in mountInfo.Split('\n'))
        {
            // ID parent major:minor root directory options [tag…] - type source options: proc_pid_mountinfo(5).
            string[] sides = line.Split(" - ", 2);
            string[] left = sides[0].Split(' ');
            if (sides.Length == 2 && left.Length > 4 && left[4] == directory)
            {
                string options = sides[1].Split(' ').ElementAtOrDefault(2) ?? "";
                found = options.Split(',').FirstOrDefault(o => o.StartsWith(Key, StringComparison.Ordinal))?[Key.Length..] ?? "never";
            }
        }

        return found;
    }
}
