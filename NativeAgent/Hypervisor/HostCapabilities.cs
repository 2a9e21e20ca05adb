using System.Globalization;
using FCtrans.Agent.Interop;

namespace FCtrans.Agent.Hypervisor;

/// <summary>One thing that FCtrans needs of a host.</summary>
/// <param name="Name">Stable: <c>userfaultfd</c>, <c>userfaultfd-wp-async</c>, <c>pagemap-scan</c>, <c>ptrace</c>, <c>pidfd-getfd</c>, <c>ram-directory</c>, <c>qemu</c>, <c>libvirt</c>.</param>
/// <param name="Detail">What was seen.</param>
/// <param name="Remedy">What to do about it; empty when it is available.</param>
internal sealed record HostCapability(string Name, bool Available, string Detail, string Remedy);

/// <summary>Asks the kernel of this host, once and in one place, for each thing that FCtrans needs: by trying it, not by its version.</summary>
internal static class HostCapabilities
{
    /// <summary>Where guests' RAM files and stores lie unless the user says otherwise.</summary>
    public const string RamDirectory = "/dev/shm";

    /// <summary>The oldest that FCtrans is made for and tested with; README.md names it too.</summary>
    private static readonly Version s_oldestQemu = new(7, 2);

    private const string NewerKernel = "Run Linux 6.7 or later.";

    public static IReadOnlyList<HostCapability> Probe()
    {
        var (features, failure) = ProbeUserfaultfd();
        return
        [
            Userfaultfd(features, failure),
            WpAsync(features, failure),
            PagemapScanning(),
            Tracing(),
            PidfdGetfd(),
            RamFiles(),
            Qemu(),
            Libvirt(),
        ];
    }

    /// <summary>The program of that name on the PATH; empty if there is none.</summary>
    public static string FindProgram(string name)
        => (Environment.GetEnvironmentVariable("PATH") ?? "/usr/bin:/bin").Split(':', StringSplitOptions.RemoveEmptyEntries)
            .Append("/usr/libexec")
            .Select(directory => Path.Combine(directory, name))
            .FirstOrDefault(File.Exists) ?? "";

    /// <summary>The version of this host's <c>qemu-system-x86_64</c>; empty if it has none.</summary>
    public static string QemuVersion() => FindProgram("qemu-system-x86_64") is { Length: > 0 } path ? QemuVersions.OfFile(path) : "";

    private static (UffdFeatures Features, KernelException? Failure) ProbeUserfaultfd()
    {
        try
        {
            return (Interop.Userfaultfd.Probe(), null);
        }
        catch (KernelException e)
        {
            return (UffdFeatures.None, e);
        }
    }

    private static HostCapability Userfaultfd(UffdFeatures features, KernelException? failure)
    {
        const string Name = "userfaultfd";
        if (failure is not null)
        {
            return new HostCapability(
                Name, false, failure.Message,
                failure.Errno == Errno.ENOSYS ? "Run a kernel with CONFIG_USERFAULTFD." : failure.Remedy);
        }

        var missing = UffdFeatures.Paging & ~features;
        return missing == UffdFeatures.None
            ? new HostCapability(Name, true, features.Describe(), "")
            : new HostCapability(Name, false, $"The kernel lacks {missing.Describe()}.", "Run Linux 5.19 or later for remote paging.");
    }

    private static HostCapability WpAsync(UffdFeatures features, KernelException? failure)
    {
        const string Name = "userfaultfd-wp-async";
        var missing = UffdFeatures.Tracking & ~features;
        return failure is not null
            ? new HostCapability(Name, false, "There is no userfaultfd.", failure.Remedy)
            : missing == UffdFeatures.None
                ? new HostCapability(Name, true, UffdFeatures.Tracking.Describe(), "")
                : new HostCapability(Name, false, $"The kernel lacks {missing.Describe()}.", NewerKernel);
    }

    private static HostCapability PagemapScanning()
        => PagemapScan.Supported()
            ? new HostCapability("pagemap-scan", true, "ioctl(PAGEMAP_SCAN) works.", "")
            : new HostCapability("pagemap-scan", false, "ioctl(PAGEMAP_SCAN) fails.", NewerKernel);

    private static HostCapability Tracing()
    {
        const string Name = "ptrace";
        const int CapSysPtrace = 19;
        string scope = ProcessFiles.ReadText("/proc/sys/kernel/yama/ptrace_scope").Trim();
        if (scope == "3")
        {
            return new HostCapability(
                Name, false, "kernel.yama.ptrace_scope is 3: no process may trace another.",
                "Set it to at most 2 and start the host again (3 can't be taken back while it runs).");
        }

        foreach (var line in ProcessFiles.ReadText("/proc/self/status").AsSpan().EnumerateLines())
        {
            if (line.StartsWith("CapEff:", StringComparison.Ordinal)
                && ulong.TryParse(line[7..].Trim(), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong effective)
                && (effective >> CapSysPtrace & 1) != 0)
            {
                return new HostCapability(Name, true, scope.Length > 0 ? $"CAP_SYS_PTRACE; kernel.yama.ptrace_scope is {scope}." : "CAP_SYS_PTRACE.", "");
            }
        }

        return new HostCapability(Name, false, "The agent lacks CAP_SYS_PTRACE.", "Connect as root.");
    }

    private static HostCapability PidfdGetfd()
    {
        const string Name = "pidfd-getfd";
        try
        {
            using var own = PidFd.Open(Environment.ProcessId);
            using var copy = own.GetFd(own.Descriptor);
            return new HostCapability(Name, true, "pidfd_getfd works.", "");
        }
        catch (KernelException e)
        {
            return new HostCapability(Name, false, e.Message, e.Remedy);
        }
    }

    private static HostCapability RamFiles()
    {
        const string Name = "ram-directory";
        const string Remedy = "Mount a tmpfs at /dev/shm, as large as the memory that guests may have there.";
        try
        {
            var (kind, free) = FileSystems.LookAt(RamDirectory);
            return kind == FileSystems.Tmpfs
                ? new HostCapability(Name, true, $"{RamDirectory} is a tmpfs with {free >> 20} MiB free.", "")
                : new HostCapability(Name, false, $"{RamDirectory} is no tmpfs.", Remedy);
        }
        catch (KernelException e)
        {
            return new HostCapability(Name, false, e.Message, Remedy);
        }
    }

    private static HostCapability Libvirt()
    {
        var (available, detail) = LibvirtHost.Look();
        return new HostCapability(
            "libvirt", available, detail.Length > 0 ? detail : "libvirt is not installed.",
            available ? "" : "Install and start it (Debian: libvirt-daemon-system), if the host is to run domains of libvirt.");
    }

    private static HostCapability Qemu()
    {
        string path = FindProgram("qemu-system-x86_64");
        return Qemu(path, path.Length > 0 ? QemuVersions.OfFile(path) : "");
    }

    /// <summary>A version that can't be told is no reason to refuse: the program says no itself when it is told something it does not know.</summary>
    internal static HostCapability Qemu(string path, string version)
    {
        const string Name = "qemu";
        return path.Length == 0
            ? new HostCapability(Name, false, "There is no qemu-system-x86_64 on the PATH.", "Install it (Debian: qemu-system-x86). A sub-host needs none.")
            : System.Version.TryParse(version, out var known) && known < s_oldestQemu
                ? new HostCapability(Name, false, $"{path} is version {version}.", $"Install QEMU {s_oldestQemu} or later. A sub-host needs none.")
                : new HostCapability(Name, true, version.Length > 0 ? $"{path}, version {version}." : $"{path}, of an unknown version.", "");
    }
}
