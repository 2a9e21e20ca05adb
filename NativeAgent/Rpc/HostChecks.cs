using System.Net;
using System.Net.Sockets;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;

namespace FCtrans.Agent.Rpc;

/// <summary>Looks for all that may stop or slow down a split on this host. Changes nothing.</summary>
internal static class HostChecks
{
    private const string Passed = "passed";
    private const string Warning = "warning";
    private const string Failed = "failed";

    /// <summary>Which parts of a split need which capability.</summary>
    private static readonly Dictionary<string, string[]> s_neededBy = new()
    {
        ["userfaultfd"] = ["source", "main"],
        ["userfaultfd-wp-async"] = ["source"],
        ["pagemap-scan"] = ["source"],
        ["ptrace"] = ["source", "main"],
        ["pidfd-getfd"] = ["source", "main"],
        ["ram-directory"] = ["main", "sub"],
        ["qemu"] = ["main"],
    };

    /// <param name="dataAddress">Where other hosts are to reach this one; empty: not checked.</param>
    public static IEnumerable<HostCheck> Run(string dataAddress)
    {
        yield return Root();
        yield return Make("agent", Passed, $"fctrans-agent {Program.Version}, {Environment.ProcessPath}.", "", "source", "main", "sub");
        yield return Kernel();
        foreach (var capability in HostCapabilities.Probe().Where(c => c.Name != "libvirt"))
        {
            yield return Make(
                capability.Name, capability.Available ? Passed : Failed, capability.Detail, capability.Remedy,
                s_neededBy.GetValueOrDefault(capability.Name, []));
        }

        yield return Memory();
        yield return Swap();
        yield return HugePages();
        if (dataAddress.Length > 0)
        {
            yield return DataAddress(dataAddress);
        }

        yield return Libvirt();
        yield return Workers();
    }

    private static HostCheck Make(string name, string result, string detail, string remedy, params string[] parts)
    {
        var check = new HostCheck { Name = name, Result = result, Detail = detail, Remedy = result == Passed ? "" : remedy };
        check.Parts.AddRange(parts);
        return check;
    }

    private static HostCheck Root() => Make(
        "root", Environment.IsPrivilegedProcess ? Passed : Failed,
        Environment.IsPrivilegedProcess ? "The agent runs as root." : $"The agent runs as {Environment.UserName}.",
        "Connect as root, or with -Sudo.", "source", "main", "sub");

    /// <summary>What the kernel can is tried by the capabilities; its version says at a glance why one of them is missing.</summary>
    private static HostCheck Kernel()
    {
        string release = ProcessFiles.ReadText("/proc/sys/kernel/osrelease").Trim();
        string[] parts = release.Split('.', '-', '+');
        bool known = parts.Length > 1 & int.TryParse(parts[0], out int major) & int.TryParse(parts.ElementAtOrDefault(1), out int minor);
        return !known || (major, minor).CompareTo((6, 7)) >= 0
            ? Make("kernel", Passed, $"Linux {release}.", "", "source", "main", "sub")
            : Make(
                "kernel", Warning, $"Linux {release}: VMs can't be moved away from here, since the kernel does not tell what a guest writes.",
                "Run Linux 6.7 or later where VMs are to be moved away from.", "source");
    }

    /// <summary>A tmpfs promises a size, whether or not there is memory for it.</summary>
    private static HostCheck Memory()
    {
        ulong total = HostInspector.MemoryInfo("MemTotal:");
        ulong available = HostInspector.MemoryInfo("MemAvailable:");
        ulong room = Directory.Exists(HostCapabilities.RamDirectory)
            ? (ulong)new DriveInfo(HostCapabilities.RamDirectory).AvailableFreeSpace : 0;
        string seen = $"{available >> 20} of {total >> 20} MiB of memory are available, {room >> 20} MiB are free in {HostCapabilities.RamDirectory}.";
        return room > available
            ? Make("memory", Warning, seen, $"{HostCapabilities.RamDirectory} promises more than there is: give guests no more than the memory available.", "main", "sub")
            : room < available / 2
                ? Make("memory", Warning, seen, $"Guests' memory may use less than half of what is available: mount -o remount,size=… {HostCapabilities.RamDirectory}.", "main", "sub")
                : Make("memory", Passed, seen, "", "main", "sub");
    }

    /// <summary>What lies in a tmpfs can be swapped out: then a page fault waits for a disk.</summary>
    private static HostCheck Swap()
    {
        ulong total = HostInspector.MemoryInfo("SwapTotal:");
        return total == 0
            ? Make("swap", Passed, "There is no swap space.", "", "main", "sub")
            : Make("swap", Warning, $"There are {total >> 20} MiB of swap space: guests' memory may go there.", "Turn it off (swapoff -a), or lower vm.swappiness.", "main", "sub");
    }

    /// <summary>Remote paging works in pages of 4 KiB; a huge page in the RAM file would be split again and again.</summary>
    private static HostCheck HugePages()
    {
        var (given, detail, remedy) = TmpfsHugePages.Look(
            ProcessFiles.ReadText(TmpfsHugePages.SwitchPath), ProcessFiles.ReadText("/proc/self/mountinfo"), HostCapabilities.RamDirectory);
        return Make("huge-pages", given ? Warning : Passed, detail, remedy, "main", "sub");
    }

    private static HostCheck DataAddress(string text)
    {
        const string name = "data-address";
        if (!IPAddress.TryParse(text, out var address))
        {
            return Make(name, Failed, $"'{text}' is no IP address.", "Connect with another -DataAddress.", "main", "sub");
        }

        try
        {
            using var socket = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new IPEndPoint(address, 0));
            socket.Listen(1);
            return Make(name, Passed, $"{address} is this host's; ports can be opened there. Workers use free ones: {PortRange()}.", "", "main", "sub");
        }
        catch (SocketException e)
        {
            return Make(name, Failed, $"No port can be opened on {address}: {e.Message}.", "Connect with -DataAddress and an address that this host has.", "main", "sub");
        }
    }

    private static string PortRange()
    {
        string[] range = ProcessFiles.ReadText("/proc/sys/net/ipv4/ip_local_port_range").Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
        return range.Length == 2 ? $"{range[0]} to {range[1]}, let them through the firewall" : "let them through the firewall";
    }

    private static HostCheck Libvirt()
    {
        var (available, detail) = LibvirtHost.Look();
        return detail.Length == 0
            ? Make("libvirt", Passed, "libvirt is not installed; only its own domains need it.", "", "source", "main")
            : available
                ? Make("libvirt", Passed, detail, "", "source", "main")
                : Make("libvirt", Warning, detail, "Start libvirtd, if this host has domains of libvirt or is to get some.", "source", "main");
    }

    private static HostCheck Workers()
    {
        List<WorkerSummary> all;
        try
        {
            all = [.. WorkerManager.List()];
        }
        catch (UnauthorizedAccessException)
        {
            return Make("workers", Warning, "Only root may see the workers.", "Connect as root, or with -Sudo.", "source", "main", "sub");
        }

        var dead = all.Where(w => !w.Running && !WorkerDirectory.Of(w.Spec.SplitId, w.Spec.Role).Has(Markers.Ended)).ToList();
        return dead.Count > 0
            ? Make(
                "workers", Failed, $"The {string.Join(", ", dead.Select(w => $"{WorkerDirectory.RoleName(w.Spec.Role)} worker of '{w.Spec.VmName}'"))} does not run.",
                "It is started again within seconds; if not, its log is worker.log in its directory under /run/fctrans.", "source", "main", "sub")
            : Make("workers", Passed, $"{all.Count(w => w.Running)} run, {all.Count(w => !w.Running)} have ended.", "", "source", "main", "sub");
    }
}
