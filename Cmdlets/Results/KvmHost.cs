using FCtrans.Client;
using FCtrans.Commands;
using FCtrans.Contracts;

namespace FCtrans;

/// <summary>A connected host. Its figures are those of when the object was made; Get-KvmHost asks anew.</summary>
public sealed class KvmHost
{
    internal KvmHost(KvmHostConnection connection)
    {
        Connection = connection;
        HostInfo info = connection.Info;
        KernelRelease = info.KernelRelease;
        AgentVersion = info.AgentVersion;
        QemuVersion = info.QemuVersion;
        ProcessorCount = (int)info.ProcessorCount;
        MemoryTotalBytes = info.MemoryTotalBytes;
        MemoryAvailableBytes = info.MemoryAvailableBytes;
        RamDirectoryFreeBytes = info.RamDirectoryFreeBytes;
        OutdatedWorkers = (int)info.OutdatedWorkers;
        Capabilities = [.. info.Capabilities.Select(c => new KvmHostCapability(c))];
    }

    /// <summary>What the host is called here.</summary>
    public string Name => Connection.Name;

    /// <summary>The name or address it was connected by.</summary>
    public string HostName => Connection.Settings.HostName;

    /// <summary>The port of its sshd.</summary>
    public int Port => Connection.Settings.Port;

    /// <summary>The user on the host.</summary>
    public string UserName => Connection.Settings.UserName;

    /// <summary>Where other hosts send guest memory for this one.</summary>
    public string DataAddress => Connection.DataAddress;

    /// <summary>The host's key, as <c>SHA256:…</c>.</summary>
    public string HostKeyFingerprint => Connection.HostKeyFingerprint;

    /// <summary>Whether the SSH connection stands. One that broke is opened again when it is needed.</summary>
    public bool IsConnected => !IsDisconnected && Connection.IsConnected;

    /// <summary>The kernel's release, as uname -r prints it.</summary>
    public string KernelRelease { get; }

    /// <summary>The version of the agent on the host.</summary>
    public string AgentVersion { get; }

    /// <summary>The agent's path on the host.</summary>
    public string AgentPath => Connection.AgentPath;

    /// <summary>The version of QEMU on the host's PATH; empty if there is none.</summary>
    public string QemuVersion { get; }

    /// <summary>Processors of the host.</summary>
    public int ProcessorCount { get; }

    /// <summary>The host's memory.</summary>
    public ulong MemoryTotalBytes { get; }

    /// <summary>Memory that the host could give to new work.</summary>
    public ulong MemoryAvailableBytes { get; }

    /// <summary>Free space where guests' memory lies (/dev/shm).</summary>
    public ulong RamDirectoryFreeBytes { get; }

    /// <summary>How many workers of split VMs run the program of another agent here. Connect-KvmHost -UpgradeWorker brings them under this one.</summary>
    public int OutdatedWorkers { get; }

    /// <summary>What FCtrans needs of a host, and whether it is there.</summary>
    public IReadOnlyList<KvmHostCapability> Capabilities { get; }

    internal KvmHostConnection Connection { get; }

    /// <summary>Disconnect-KvmHost was used on it, or on another object of the same connection: it can't be used any more.</summary>
    internal bool IsDisconnected => Connection.IsDisposed;

    /// <inheritdoc/>
    public override string ToString() => Name;

    internal void Disconnect()
    {
        HostRegistry.Remove(this);
        Connection.Dispose();
    }
}
