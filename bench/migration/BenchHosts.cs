using FCtrans.Client;
using FCtrans.Lab;

namespace FCtrans.Bench.Migrations;

/// <summary>The hosts of the migration benchmark, each with the connection that a user of the module would have.</summary>
internal sealed class BenchHosts : IDisposable
{
    private readonly Lab.Lab _lab = new();
    private readonly Dictionary<string, KvmHostConnection> _connections = new(StringComparer.Ordinal);

    public BenchHosts(params ReadOnlySpan<string> names)
    {
        string repository = FindRepository();
        var agent = AgentPackage.Load(Path.Combine(repository, "out", "FCtrans", "agent", "linux-x64", "fctrans-agent"), "bench");
        foreach (string name in names)
        {
            LabHost host = _lab.AddHost(name, 400L << 30);
            _connections[name] = KvmHostConnection.OpenAsync(
                new KvmHostSettings { HostName = host.Address, Name = name, KeyFile = _lab.KeyPath, KnownHostsFile = _lab.KnownHostsPath },
                agent, CancellationToken.None).GetAwaiter().GetResult();
        }
    }

    public LabHost this[string name] => _lab.Hosts[name];

    public KvmHostConnection Connection(string name) => _connections[name];

    /// <summary>Limits every host's link in each direction; null lifts it.</summary>
    public void Shape(long? bitsPerSecond)
    {
        foreach (LabHost host in _lab.Hosts.Values)
        {
            host.ShapeLink(bitsPerSecond);
        }
    }

    /// <summary>
    /// Touches as much memory as a migration may, so that what a machine which is itself a virtual one pays for memory that its own host
    /// has taken back falls on no migration.
    /// </summary>
    public static void Warm(LabHost host, long bytes)
    {
        // Half as much again: until the transfer begins some of it is taken back already (free page reporting, a 16th of what is free every two
        // seconds). What is left stays for whoever prepares.
        long mebibytes = Math.Min(bytes * 3 / 2, 12L << 30) >> 20;
        host.Exec(
            $"free=$(awk '/^MemAvailable/ {{ print int($2 / 1024) - 2048 }}' /proc/meminfo); " +
            $"dd if=/dev/zero of=/dev/shm/warm bs=1M count=$((free < {mebibytes} ? free : {mebibytes})) 2>/dev/null; rm /dev/shm/warm",
            TimeSpan.FromMinutes(5));
    }

    public void Dispose()
    {
        foreach (KvmHostConnection connection in _connections.Values)
        {
            connection.Dispose();
        }

        _lab.Dispose();
    }

    private static string FindRepository()
    {
        string? at = AppContext.BaseDirectory;
        while (at is not null && !File.Exists(Path.Combine(at, "FCtrans.psd1")))
        {
            at = Path.GetDirectoryName(at);
        }

        return at ?? throw new FormatException("The benchmark does not lie within the FCtrans repository.");
    }
}
