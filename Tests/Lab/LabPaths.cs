namespace FCtrans.Lab;

/// <summary>Where the lab's own files lie. `Tests/Lab/prepare` put them there before the lab was entered.</summary>
internal static class LabPaths
{
    /// <summary>The repository that this assembly was built from: the nearest directory above it with Tests/Lab/enter.</summary>
    public static string Repository { get; } = FindRepository();

    public static string Cache => Path.Combine(Repository, "artifacts", "cache", "lab");

    public static string Enclosure => Require(Path.Combine(Cache, "enclosure"), "");

    public static string Initramfs(bool kexec) => Require(Path.Combine(Cache, kexec ? "initramfs-kexec" : "initramfs"), kexec ? "kexec" : "");

    /// <summary>Kernel and initramfs of a guest that can run a server.</summary>
    public static (string Kernel, string Initramfs) Server =>
        (Require(Path.Combine(Cache, "vmlinuz-server"), "server"), Require(Path.Combine(Cache, "initramfs-server"), "server"));

    /// <summary>Debian's redis-benchmark for this machine, by its own loader and libraries.</summary>
    public static string[] RedisBenchmark
    {
        get
        {
            string directory = Path.Combine(Cache, "redis-benchmark");
            return [Path.Combine(directory, "ld-linux-x86-64.so.2"), "--library-path", Path.Combine(directory, "lib"), Require(Path.Combine(directory, "redis-benchmark"), "server")];
        }
    }

    public static string BareGuest => Require(Path.Combine(Cache, "bare.elf"), "");

    public static string Kernel(string version)
    {
        const string Generic = "-generic";
        string plain = version.EndsWith(Generic, StringComparison.Ordinal) ? version[..^Generic.Length] : version;
        return Require(Path.Combine(Cache, "vmlinuz-" + Plain(plain) + version[plain.Length..]), "kernel-" + version);
    }

    /// <summary>The QEMU of that version, with the arguments that tell it where its firmware is.</summary>
    public static (string Program, string[] Arguments) Qemu(string version)
    {
        if (version == "7.2")
        {
            return ("/usr/bin/qemu-system-x86_64", []);
        }

        string root = Path.Combine(Cache, "qemu-" + Plain(version), "usr");
        string program = Require(Path.Combine(root, "bin", "qemu-system-x86_64"), "qemu-" + version);
        return (program, ["-L", Path.Combine(root, "share", "qemu"), "-L", Path.Combine(root, "share", "seabios")]);
    }

    private static string Plain(string version) =>
        version.Length > 0 && version.All(c => char.IsAsciiDigit(c) || c == '.') ? version : throw new LabException($"'{version}' is no version.");

    private static string Require(string path, string what) =>
        File.Exists(path) ? path : throw new LabException($"{path} is missing. Run 'Tests/Lab/prepare {what}' outside the lab first.");

    private static string FindRepository()
    {
        for (string? at = Path.GetDirectoryName(typeof(LabPaths).Assembly.Location); at is not null; at = Path.GetDirectoryName(at))
        {
            if (File.Exists(Path.Combine(at, "Tests", "Lab", "enter")))
            {
                return at;
            }
        }

        throw new LabException("The lab's assembly does not lie within the FCtrans repository, so its files cannot be found.");
    }
}
