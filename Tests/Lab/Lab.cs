namespace FCtrans.Lab;

/// <summary>
/// A lab: hosts on one bridge, inside the enclosure that `Tests/Lab/enter` made. This process stands in the enclosure's
/// own network namespace, at <see cref="GatewayAddress"/>, so it reaches the hosts as an administrator's machine would.
/// One lab at a time in an enclosure. Not thread-safe, but for what says so.
/// </summary>
/// <remarks>Dispose takes all hosts and guests down. When that does not happen the enclosure's end does it.</remarks>
public sealed class Lab : IDisposable
{
    private const string Bridge = "lab0";
    private readonly Dictionary<string, LabHost> _hosts = new(StringComparer.Ordinal);
    private int _nextNumber = 2;
    private bool _disposed;

    /// <summary>Makes the bridge and the key that opens the lab's hosts.</summary>
    /// <exception cref="LabException">This process is not inside an enclosure, or there is a lab in it already.</exception>
    public Lab()
    {
        if (!IsEntered)
        {
            throw new LabException("There is no lab around this process. Start it by 'Tests/Lab/enter COMMAND'.");
        }

        if (Directory.Exists(Root))
        {
            throw new LabException("There is a lab in this enclosure already; remove it first, or enter another.");
        }

        Directory.CreateDirectory(Path.Combine(Root, "hosts"));
        LabCommand.Require("ip", "link", "add", Bridge, "type", "bridge");
        LabCommand.Require("ip", "address", "add", GatewayAddress + "/24", "dev", Bridge);
        LabCommand.Require("ip", "link", "set", Bridge, "up");
        LabCommand.Require("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", KeyPath);
        File.WriteAllText(KnownHostsPath, "");
    }

    /// <summary>Whether this process is inside an enclosure made by `Tests/Lab/enter`.</summary>
    public static bool IsEntered => Environment.GetEnvironmentVariable("FCTRANS_LAB") == "1";

    /// <summary>This process's address on the lab's network.</summary>
    public static string GatewayAddress => "198.18.0.1";

    /// <summary>The command, but for its arguments, that runs Debian's redis-benchmark on this machine (`prepare server`).</summary>
    public static IReadOnlyList<string> RedisBenchmark => LabPaths.RedisBenchmark;

    /// <summary>The private key (OpenSSH's format, no passphrase) that root's account of each host accepts.</summary>
    public string KeyPath => Path.Combine(Root, "id_ed25519");

    /// <summary>A known_hosts file with the keys of the hosts that exist.</summary>
    public string KnownHostsPath => Path.Combine(Root, "known_hosts");

    /// <summary>Root's password on each host.</summary>
    public string Password => "lab-password";

    /// <summary>The hosts there are, by name.</summary>
    public IReadOnlyDictionary<string, LabHost> Hosts => _hosts;

    internal static string Root => "/tmp/lab";

    /// <summary>Starts a host and waits until its sshd answers.</summary>
    /// <param name="name">Letters, digits and hyphens, at most 12; it becomes the host's name.</param>
    /// <param name="shmBytes">The size of the host's /dev/shm, which is where guests' memory lies: what a real host would have as RAM.</param>
    public LabHost AddHost(string name, long shmBytes = 16L << 30)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (name.Length is 0 or > 12 || !name.All(c => char.IsAsciiLetterOrDigit(c) || c == '-'))
        {
            throw new LabException($"'{name}' can't be a host's name: it takes 1 to 12 letters, digits and hyphens.");
        }

        if (_hosts.ContainsKey(name))
        {
            throw new LabException($"There is a host {name} already.");
        }

        if (shmBytes < 1 << 20 || _nextNumber > 254)
        {
            throw new LabException("A host's /dev/shm takes at least 1 MiB, and a lab at most 253 hosts.");
        }

        var host = new LabHost(this, name, _nextNumber++, shmBytes);
        try
        {
            host.Start(Bridge);
        }
        catch
        {
            host.Dispose();
            throw;
        }

        _hosts.Add(name, host);
        WriteKnownHosts();
        return host;
    }

    /// <summary>Ends every host with all that runs there, and removes the bridge and the files.</summary>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        foreach (LabHost host in _hosts.Values.ToArray())
        {
            host.Dispose();
        }

        LabCommand.Run("ip", ["link", "delete", Bridge]);
        Directory.Delete(Root, recursive: true);
    }

    internal void Forget(LabHost host)
    {
        if (_hosts.TryGetValue(host.Name, out LabHost? known) && known == host)
        {
            _hosts.Remove(host.Name);
            WriteKnownHosts();
        }
    }

    private void WriteKnownHosts() =>
        File.WriteAllLines(KnownHostsPath, _hosts.Values.Select(host => $"{host.Address} {host.HostKey}"));
}
