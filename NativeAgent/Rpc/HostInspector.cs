using System.Globalization;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;

namespace FCtrans.Agent.Rpc;

/// <summary>What a host is and has.</summary>
internal static class HostInspector
{
    public static HostInfo Inspect()
    {
        var info = new HostInfo
        {
            HostName = Environment.MachineName,
            AgentVersion = Program.Version,
            KernelRelease = File.ReadAllText("/proc/sys/kernel/osrelease").Trim(),
            MemoryTotalBytes = MemoryInfo("MemTotal:"),
            MemoryAvailableBytes = MemoryInfo("MemAvailable:"),
            RamDirectoryFreeBytes = Directory.Exists(HostCapabilities.RamDirectory) ? (ulong)new DriveInfo(HostCapabilities.RamDirectory).AvailableFreeSpace : 0,
            ProcessorCount = (uint)Environment.ProcessorCount,
            ConnectionAddress = ConnectionAddress(),
            OutdatedWorkers = (uint)WorkerUpgrade.Outdated().Count,
        };
        info.QemuVersion = HostCapabilities.QemuVersion();
        info.ProcessorFlags.AddRange(DestinationChecks.ProcessorFlags());
        info.Capabilities.AddRange(HostCapabilities.Probe().Select(found => new Contracts.HostCapability
        {
            Name = found.Name,
            Available = found.Available,
            Detail = found.Detail,
            Remedy = found.Remedy,
        }));
        return info;
    }

    /// <summary>A line of /proc/meminfo in bytes; 0 when it is not there.</summary>
    public static ulong MemoryInfo(string name)
    {
        string? line = File.ReadLines("/proc/meminfo").FirstOrDefault(l => l.StartsWith(name, StringComparison.Ordinal));
        string[] parts = line?.Split(' ', StringSplitOptions.RemoveEmptyEntries) ?? [];
        return parts.Length >= 2 && ulong.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out ulong kib) ? kib * 1024 : 0;
    }

    /// <summary>sshd sets SSH_CONNECTION: client address, client port, server address, server port.</summary>
    private static string ConnectionAddress()
    {
        string[] parts = Environment.GetEnvironmentVariable("SSH_CONNECTION")?.Split(' ') ?? [];
        return parts.Length == 4 ? parts[2] : "";
    }
}
