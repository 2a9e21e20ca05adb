using System.Diagnostics;
using System.Net.Sockets;

namespace FCtrans.Lab;

/// <summary>
/// A host of the lab: network, mount, PID and UTS namespaces of its own, held by one enclosure process whose command is
/// the host's sshd. Private: /run, /tmp, /dev/shm, /proc, /sys; what it writes below /etc, /var, /root and /home stays in
/// its own memory and is gone with it.
/// </summary>
public sealed class LabHost : IDisposable
{
    private readonly Lab _lab;
    private readonly string _device;
    private readonly List<LabGuest> _guests = [];
    private Process? _keeper;
    private int _init;

    internal LabHost(Lab lab, string name, int number, long shmBytes)
    {
        _lab = lab;
        Name = name;
        Address = $"198.18.0.{number}";
        ShmBytes = shmBytes;
        _device = $"host{number}";
    }

    /// <summary>The host's name.</summary>
    public string Name { get; }

    /// <summary>Its IPv4 address on the lab's network; sshd listens on port 22.</summary>
    public string Address { get; }

    /// <summary>The size of its /dev/shm in bytes.</summary>
    public long ShmBytes { get; }

    /// <summary>Its public host key as known_hosts has it: type and base64.</summary>
    public string HostKey { get; private set; } = "";

    /// <summary>The PID, seen from here, of the host's first process; 0 when the host does not run.</summary>
    public int ProcessId => IsRunning ? _init : 0;

    /// <summary>Whether the host runs.</summary>
    public bool IsRunning => _keeper is { HasExited: false };

    /// <summary>The guests that were started on this host and have not been stopped.</summary>
    public IReadOnlyList<LabGuest> Guests => _guests;

    private string Directory => Path.Combine(Lab.Root, "hosts", Name);

    /// <summary>Where a file of this host is seen from here.</summary>
    public string PathOf(string pathOnHost)
    {
        RequireRunning();
        return $"/proc/{_init}/root{pathOnHost}";
    }

    /// <summary>Runs a shell command on the host as root, without SSH.</summary>
    /// <exception cref="LabException">The host does not run, or the command takes longer than the time given (60 s if none).</exception>
    public LabCommandResult Exec(string command, TimeSpan? timeout = null) => Exec(["/bin/sh", "-c", command], timeout);

    /// <summary>Runs a program on the host as root, without SSH.</summary>
    public LabCommandResult Exec(IEnumerable<string> command, TimeSpan? timeout = null)
    {
        RequireRunning();
        return LabCommand.Run("nsenter", [.. EnterArguments, .. command], timeout);
    }

    /// <summary>Limits the host's link in each direction; null lifts the limit. Takes effect at once.</summary>
    /// <param name="bitsPerSecond">At least 100 kbit/s.</param>
    public void ShapeLink(long? bitsPerSecond)
    {
        RequireRunning();
        if (bitsPerSecond is < 100_000)
        {
            throw new LabException("A link takes at least 100 kbit/s.");
        }

        foreach (string[] tc in new string[][] { ["tc"], ["nsenter", .. NetworkArguments, "tc"] })
        {
            string device = tc.Length == 1 ? _device : "eth0";
            if (bitsPerSecond is not { } rate)
            {
                // Fails when there is no limit; that is what is wanted.
                LabCommand.Run(tc[0], [.. tc[1..], "qdisc", "delete", "dev", device, "root"]);
                continue;
            }

            // The bucket holds 10 ms, and at least two of the 64 KiB packets that veth carries.
            long burst = Math.Max(rate / 8 / 100, 128 << 10);
            LabCommand.Require(tc[0], [.. tc[1..], "qdisc", "replace", "dev", device, "root", "tbf",
                "rate", rate + "bit", "burst", burst.ToString(), "latency", "50ms"]);
        }
    }

    /// <summary>Unplugs the host: nothing passes until <see cref="RestoreLink"/>; connections are not closed.</summary>
    public void CutLink()
    {
        RequireRunning();
        LabCommand.Require("ip", "link", "set", _device, "down");
    }

    /// <summary>Plugs the host in again.</summary>
    public void RestoreLink()
    {
        RequireRunning();
        LabCommand.Require("ip", "link", "set", _device, "up");
    }

    /// <summary>Boots a Linux guest here and waits until the oracle in it answers.</summary>
    public LabGuest StartGuest(LabGuestOptions options)
    {
        RequireRunning();
        return LabGuest.Start(this, options);
    }

    /// <summary>Ends the host at once, as a power failure would: all its processes are killed, its memory is gone.</summary>
    public void Dispose()
    {
        foreach (LabGuest guest in _guests.ToArray())
        {
            guest.Console.Close();
        }

        _guests.Clear();
        if (_keeper is not null)
        {
            _keeper.Kill();
            _keeper.WaitForExit();
            _keeper.Dispose();
            _keeper = null;
            // The network namespace ends in the background; without its end of the cable the device is gone now.
            LabCommand.Run("ip", ["link", "delete", _device]);
        }

        if (System.IO.Directory.Exists(Directory))
        {
            System.IO.Directory.Delete(Directory, recursive: true);
        }

        _lab.Forget(this);
    }

    internal void Start(string bridge)
    {
        System.IO.Directory.CreateDirectory(Directory);
        string key = Path.Combine(Directory, "host_key");
        string up = Path.Combine(Directory, "up");
        LabCommand.Require("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", Name, "-f", key);
        HostKey = string.Join(' ', File.ReadAllText(key + ".pub").Split(' ')[..2]);
        File.Copy(_lab.KeyPath + ".pub", Path.Combine(Directory, "authorized_keys"));
        string hash = LabCommand.Require("busybox", "mkpasswd", "-m", "sha512", _lab.Password).Trim();
        string script =
            "set -e; mkdir -p /run/sshd; " +
            $"sed -i 's|^root:[^:]*:|root:{hash}:|' /etc/shadow; " +
            "rm -rf /root/.ssh /var/lib/fctrans; " +
            $"echo '127.0.0.1 localhost {Name}' >/etc/hosts; echo {Name} >/etc/hostname; " +
            $": >{up}; " +
            $"exec /usr/sbin/sshd -D -E {Directory}/sshd.log -f /dev/null -h {key} " +
            "-o UsePAM=no -o PermitRootLogin=yes -o PasswordAuthentication=yes -o KbdInteractiveAuthentication=no -o StrictModes=no " +
            $"-o AuthorizedKeysFile={Directory}/authorized_keys -o PidFile=/run/sshd.pid -o UseDNS=no -o PrintMotd=no " +
            "-o MaxStartups=200 -o MaxSessions=200 -o LoginGraceTime=30 -o 'Subsystem=sftp internal-sftp'";

        var start = new ProcessStartInfo(LabPaths.Enclosure) { RedirectStandardInput = true, RedirectStandardError = true };
        string[] arguments =
        [
            "--hostname", Name, "--shm", ShmBytes.ToString(), "--keep", LabPaths.Repository, "--keep", Directory,
            "--overlay", "/etc", "--overlay", "/var", "--overlay", "/root", "--overlay", "/home", "--",
            // Ctrl+C at a terminal is meant for whoever uses the lab: a host has a session of its own.
            "setsid", "/bin/sh", "-c", script,
        ];
        foreach (string argument in arguments)
        {
            start.ArgumentList.Add(argument);
        }

        _keeper = Process.Start(start) ?? throw new LabException($"The host {Name} did not start.");
        _keeper.StandardInput.Close();
        LabCommand.WaitUntil(() => File.Exists(up) || _keeper.HasExited, TimeSpan.FromSeconds(20), () => $"The host {Name} did not come up.");
        if (_keeper.HasExited)
        {
            throw new LabException($"The host {Name} did not start: {_keeper.StandardError.ReadToEnd().Trim()}");
        }

        // The keeper has one child, the host's init.
        _init = int.Parse(File.ReadAllText($"/proc/{_keeper.Id}/task/{_keeper.Id}/children").Split(' ')[0]);
        LabCommand.Require("ip", "link", "add", _device, "type", "veth", "peer", "name", "eth0", "netns", _init.ToString());
        LabCommand.Require("ip", "link", "set", _device, "master", bridge, "up");
        LabCommand.Require("nsenter", [.. NetworkArguments, "ip", "address", "add", Address + "/24", "dev", "eth0"]);
        LabCommand.Require("nsenter", [.. NetworkArguments, "ip", "link", "set", "eth0", "up"]);
        LabCommand.WaitUntil(SshAnswers, TimeSpan.FromSeconds(20), () => $"The sshd of {Name} does not answer: {ReadLog()}");
    }

    internal void Add(LabGuest guest) => _guests.Add(guest);

    internal void Remove(LabGuest guest) => _guests.Remove(guest);

    private string[] EnterArguments => ["-t", _init.ToString(), "--net", "--mount", "--pid", "--uts", "--ipc", "--wd=/root"];

    private string[] NetworkArguments => ["-t", _init.ToString(), "--net"];

    private void RequireRunning()
    {
        if (!IsRunning)
        {
            throw new LabException($"The host {Name} does not run.");
        }
    }

    private bool SshAnswers()
    {
        try
        {
            using var client = new TcpClient();
            // A first packet may be lost while the link comes up; the kernel would send the next after a whole second.
            using var giveUp = new CancellationTokenSource(TimeSpan.FromMilliseconds(100));
            client.ConnectAsync(Address, 22, giveUp.Token).AsTask().GetAwaiter().GetResult();
            client.ReceiveTimeout = 5000;
            return client.GetStream().ReadByte() == 'S'; // of its banner, SSH-2.0-…
        }
        catch (Exception e) when (e is SocketException or IOException or OperationCanceledException)
        {
            return false;
        }
    }

    private string ReadLog()
    {
        string log = Path.Combine(Directory, "sshd.log");
        return File.Exists(log) ? File.ReadAllText(log).Trim() : "it wrote nothing.";
    }
}
