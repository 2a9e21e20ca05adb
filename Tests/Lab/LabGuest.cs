using System.Diagnostics;
using System.Globalization;

namespace FCtrans.Lab;

/// <summary>
/// A guest on a lab host. Linux: stock QEMU with TCG, Debian's cloud kernel, and the oracle as its only program. Or the
/// bare guest under KVM, which answers the same commands but those about giving memory back and taking it anew. The
/// object stands for the virtual machine, not for one QEMU process: after a migration <see cref="MoveTo"/> follows it.
/// </summary>
public sealed class LabGuest
{
    private readonly LabGuestOptions _options;

    private LabGuest(LabHost host, LabGuestOptions options)
    {
        Host = host;
        _options = options;
        Uuid = Guid.NewGuid();
        Console = new SerialConsole(SerialPath(host));
    }

    /// <summary>The guest's name.</summary>
    public string Name => _options.Name;

    /// <summary>The virtual machine's UUID.</summary>
    public Guid Uuid { get; }

    /// <summary>The host that it runs on, as far as the lab was told.</summary>
    public LabHost Host { get; private set; }

    /// <summary>Its memory in bytes.</summary>
    public long MemoryBytes => _options.MemoryBytes;

    /// <summary>Its serial port, where the oracle answers.</summary>
    public SerialConsole Console { get; }

    /// <summary>The directory, on each host, of its sockets and PID file.</summary>
    public string RunDirectory => "/run/guests/" + Name;

    /// <summary>QEMU's monitor socket (QMP), as the host sees it.</summary>
    public string MonitorPath => RunDirectory + "/qmp";

    /// <summary>The RAM file as the host sees it; of the first NUMA node if there are several.</summary>
    public string RamPath => RamFile(0);

    /// <summary>The PID, in the host's own numbering, of the QEMU process that was started here, or 0 when it is gone.</summary>
    public int QemuProcessId
    {
        get
        {
            if (!Host.IsRunning)
            {
                return 0;
            }

            try
            {
                string text = File.ReadAllText(Host.PathOf(_options.Libvirt ? $"/run/libvirt/qemu/{Name}.pid" : RunDirectory + "/pid"));
                return int.TryParse(text, NumberStyles.None | NumberStyles.AllowTrailingWhite, CultureInfo.InvariantCulture, out int pid)
                    && Directory.Exists(Host.PathOf($"/proc/{pid}")) ? pid : 0;
            }
            catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
            {
                return 0;
            }
        }
    }

    /// <summary>Sends the oracle a command and waits for its answer.</summary>
    public OracleAnswer Invoke(string command, TimeSpan? timeout = null) => Console.Invoke(command, timeout);

    /// <summary>Waits until the oracle has verified every page it holds after this call began, and returns its counters.</summary>
    /// <remarks>A bare guest's must be running (`run`). Throws when that takes longer than the time given.</remarks>
    public OracleAnswer WaitForFullPass(TimeSpan timeout)
    {
        if (!_options.Bare)
        {
            // Beside `run`, and no longer than one pass takes: that may verify at a pace, and be just behind the page that it is to see again.
            Invoke("verify", timeout);
            return Invoke("stat", timeout);
        }

        // A pass that was under way may have seen some pages before we asked; the one after that has not.
        long wanted = Invoke("stat")["passes"] + 2;
        OracleAnswer? last = null;
        LabCommand.WaitUntil(
            () => (last = Invoke("stat", timeout))["passes"] >= wanted, timeout, () => $"The oracle came to no full pass within {timeout.TotalSeconds} s: {last}");
        return last!;
    }

    /// <summary>Follows the guest to another host, whose QEMU has the same sockets.</summary>
    public void MoveTo(LabHost host)
    {
        Host.Remove(this);
        Host = host;
        host.Add(this);
        Console.Follow(SerialPath(host));
    }

    /// <summary>Kills the guest's QEMU on its present host, if it runs, and removes its files there.</summary>
    public void Stop()
    {
        Console.Close();
        Host.Remove(this);
        if (!Host.IsRunning)
        {
            return;
        }

        if (QemuProcessId is > 0 and int pid)
        {
            Host.Exec($"kill -9 {pid}");
            LabCommand.WaitUntil(() => QemuProcessId == 0, TimeSpan.FromSeconds(20), () => $"The QEMU of {Name} does not end.");
        }

        Host.Exec($"rm -rf '{RunDirectory}' /dev/shm/'{Name}'-ram?");
    }

    internal static LabGuest Start(LabHost host, LabGuestOptions options)
    {
        options.Validate();
        string directory = "/run/guests/" + options.Name;
        if (host.Exec($"mkdir -p /run/guests && mkdir '{directory}'").ExitCode != 0)
        {
            throw new LabException($"There is a guest {options.Name} on {host.Name} already.");
        }

        var guest = new LabGuest(host, options);
        host.Add(guest);
        try
        {
            LabCommandResult result = host.Exec(options.Libvirt ? LibvirtDomain.StartCommand(guest, options) : guest.CommandLine(), TimeSpan.FromSeconds(60));
            if (result.ExitCode != 0)
            {
                throw new LabException($"QEMU did not start: {result.Error.Trim()}");
            }

            guest.WaitForBoot(options.BootTimeout);
            return guest;
        }
        catch
        {
            guest.Stop();
            throw;
        }
    }

    private void WaitForBoot(TimeSpan timeout)
    {
        long started = Stopwatch.GetTimestamp();
        while (!Console.WaitForLine(line => line == "oracle ready", TimeSpan.FromSeconds(1)))
        {
            if (QemuProcessId == 0 || Stopwatch.GetElapsedTime(started) > timeout)
            {
                throw new LabException((QemuProcessId == 0 ? "QEMU ended" : $"The oracle was not ready within {timeout.TotalSeconds} s") +
                    $" while {Name} booted. Its last lines: {string.Join(" | ", Console.Log.TakeLast(10))}");
            }
        }
    }

    private Func<string> SerialPath(LabHost host) => () => host.PathOf(RunDirectory + "/serial");

    private string RamFile(int node) => $"/dev/shm/{Name}-ram{node}";

    private List<string> CommandLine()
    {
        (string program, string[] firmware) = LabPaths.Qemu(_options.Qemu);
        bool numa = _options.NumaNodes > 1;
        List<string> line =
        [
            program, .. firmware,
            "-name", $"guest={Name}",
            "-uuid", Uuid.ToString(),
            "-m", $"{_options.MemoryBytes >> 20}M",
            .. _options.Bare
                ? (string[])["-accel", "kvm", "-cpu", "qemu64", "-machine", "pc,memory-backend=ram0"]
                : ["-accel", "tcg,thread=multi", "-machine", numa ? "q35" : "q35,memory-backend=ram0",
                   "-smp", $"{_options.Cpus},sockets={_options.Cpus},cores=1,threads=1"],
        ];
        for (int node = 0; node < _options.NumaNodes; node++)
        {
            string size = $"size={(_options.MemoryBytes >> 20) / _options.NumaNodes}M";
            line.AddRange(["-object", _options.Backing switch
            {
                LabGuestBacking.File => $"memory-backend-file,id=ram{node},mem-path={RamFile(node)},share=on,{size}",
                LabGuestBacking.Memfd => $"memory-backend-memfd,id=ram{node},share=on,{size}",
                _ => $"memory-backend-ram,id=ram{node},{size}",
            }]);
            if (numa)
            {
                line.AddRange(["-numa", $"node,nodeid={node},memdev=ram{node}"]);
            }
        }

        for (int cpu = 0; numa && cpu < _options.Cpus; cpu++)
        {
            line.AddRange(["-numa", $"cpu,node-id={cpu % _options.NumaNodes},socket-id={cpu}"]);
        }

        line.AddRange(
        [
            "-nodefaults", "-display", "none",
            "-qmp", $"unix:{MonitorPath},server=on,wait=off",
            "-chardev", $"socket,id=serial0,path={RunDirectory}/serial,server=on,wait=off",
            "-serial", "chardev:serial0",
            "-pidfile", RunDirectory + "/pid",
            .. _options.Bare
                ? (string[])["-kernel", LabPaths.BareGuest]
                : ["-kernel", _options.Server ? LabPaths.Server.Kernel : LabPaths.Kernel(_options.Kernel),
                   "-initrd", _options.Server ? LabPaths.Server.Initramfs : LabPaths.Initramfs(_options.Kexec),
                   "-append", $"console=ttyS0 quiet loglevel=1 panic=1 {_options.KernelArguments}".TrimEnd()],
            .. _options.QemuArguments,
            "-daemonize",
        ]);
        return line;
    }
}
