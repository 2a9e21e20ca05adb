using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Injection;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;

namespace FCtrans.Agent.Migration;

/// <summary>
/// The QEMU process on the main host: started from the source's command line with empty RAM files, it waits for the device
/// state; then it is the VM. It outlives the worker that started it.
/// </summary>
internal sealed class DestinationVm : IDisposable
{
    private static readonly TimeSpan s_monitorTimeout = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan s_startTimeout = TimeSpan.FromSeconds(30);

    private readonly WorkerDirectory _directory;
    private readonly PidFd _process;
    private readonly string _monitorPath;
    private readonly LibvirtGuest? _libvirt;
    private QemuMonitor? _monitor;
    private Socket? _state;

    private DestinationVm(WorkerDirectory directory, QemuProcess process)
    {
        _directory = directory;
        _process = PidFd.Open(process.Pid);
        _monitorPath = process.MonitorPath;
        _libvirt = process.Libvirt;
        Ram = GuestRamFactory.Open(process, monitor: null);
    }

    public int ProcessId => _process.ProcessId;

    /// <summary>Owned.</summary>
    public GuestRam Ram { get; }

    // Connected when it is needed first: a restarted worker must serve QEMU's faults before QEMU can answer anything.
    private QemuMonitor Monitor => _monitor ??= QemuMonitor.Connect(_monitorPath, s_monitorTimeout);

    /// <summary>Starts QEMU and waits until its monitor answers.</summary>
    /// <exception cref="MigrationException">It did not start; the message has what QEMU wrote.</exception>
    public static DestinationVm Start(WorkerSpec spec, WorkerDirectory directory)
    {
        if (spec.LibvirtXml.Length > 0)
        {
            return StartDomain(spec, directory);
        }

        string logPath = directory.File("qemu.log");
        var command = DestinationCommandLine.Translate(
            [.. spec.QemuCommandLine], new DestinationPaths(RamDirectory(spec.SplitId), RamFilePrefix: "", directory.Path));
        Directory.CreateDirectory(RamDirectory(spec.SplitId), UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        foreach (string needed in command.Directories)
        {
            Directory.CreateDirectory(needed);
        }

        directory.Mark(Markers.QemuFiles, string.Join('\n', command.PidFile is { } pidFile ? [.. command.Sockets, pidFile] : command.Sockets));
        int processId = DetachedProcess.Start(command.Arguments, logPath, workingDirectory: "/");
        directory.Mark(Markers.QemuPid, processId.ToString(CultureInfo.InvariantCulture));
        try
        {
            var monitor = WaitForMonitor(processId, command.MonitorPath, logPath);
            SetCapabilities(monitor);
            var process = QemuProcesses.TryOpen(processId) ?? throw new MigrationException($"The destination's QEMU has ended: {ReadLog(logPath)}");
            var vm = new DestinationVm(directory, process) { _monitor = monitor };
            ProcessorFeatures.Require(spec, monitor);
            vm.EmptyRam();
            return vm;
        }
        catch
        {
            Remove(directory);
            throw;
        }
    }

    private static DestinationVm StartDomain(WorkerSpec spec, WorkerDirectory directory)
    {
        try
        {
            int processId = DestinationDomain.Start(spec, directory);
            directory.Mark(Markers.QemuPid, processId.ToString(CultureInfo.InvariantCulture));
            var process = QemuProcesses.TryOpen(processId) ?? throw new MigrationException("The destination's QEMU has ended; libvirt's log of the domain says why.");
            DestinationDomain.Note(directory, process);
            var vm = new DestinationVm(directory, process);
            SetCapabilities(vm.Monitor);
            ProcessorFeatures.Require(spec, vm.Monitor);
            vm.EmptyRam();
            return vm;
        }
        catch
        {
            Remove(directory);
            throw;
        }
    }

    /// <summary>
    /// RAM is not in the stream; and a disk that both hosts have is not taken at the end of it already, but when the VM runs here: until the commitment
    /// the source may go on, and it could not while this QEMU has the disk's lock. From 10.0 on QEMU is so by itself.
    /// </summary>
    private static void SetCapabilities(QemuMonitor monitor)
    {
        const string takeDisksLate = "late-block-activate";
        var capabilities = new Dictionary<string, bool> { ["x-ignore-shared"] = true };
        if (monitor.QueryMigrationCapabilities().ContainsKey(takeDisksLate))
        {
            capabilities[takeDisksLate] = true;
        }

        monitor.SetMigrationCapabilities(capabilities);
    }

    /// <summary>The QEMU that an earlier worker started; null when it has ended.</summary>
    public static DestinationVm? Find(WorkerDirectory directory)
    {
        if (directory.Has(Markers.LibvirtDomain))
        {
            return DestinationDomain.Find(directory) is { } domain ? new DestinationVm(directory, domain) : null;
        }

        int processId = directory.ReadNumber(Markers.QemuPid);
        // A process id is used again some day: ours names the RAM files of this very split.
        return QemuProcesses.TryOpen(processId) is { } process && process.CommandLine.Any(a => a.Contains(directory.SplitId, StringComparison.Ordinal))
            ? new DestinationVm(directory, process)
            : null;
    }

    /// <summary>Ends the QEMU that an earlier worker started and removes its RAM files, if there are any.</summary>
    public static void Remove(WorkerDirectory directory)
    {
        if (Find(directory) is { } vm)
        {
            vm.Kill();
            vm.Dispose();
        }

        RemoveSockets(directory);
        foreach (string path in (ReadOnlySpan<string>)[RamDirectory(directory.SplitId), PackedDirectory(directory.SplitId)])
        {
            if (Directory.Exists(path))
            {
                Directory.Delete(path, recursive: true);
            }
        }
    }

    /// <summary>Where what is packed of the VM's memory lies; removed with the RAM files.</summary>
    public static string MakePackedDirectory(string splitId) => Directory.CreateDirectory(
        PackedDirectory(splitId), UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute).FullName;

    /// <summary>Userfaultfds over all of the guest's RAM, registered for missing and write-protected pages. QEMU keeps copies.</summary>
    public UserfaultfdSet OpenUserfaultfds()
    {
        var features = UffdFeatures.Paging | (Userfaultfd.Probe() & UffdFeatures.Poison);
        return UserfaultfdSet.Register(
            Ram, UserfaultfdInjector.Open(ProcessId, UserfaultfdSet.CountFor(Monitor.QueryCpus().Count, Ram.PageCount), features));
    }

    /// <summary>The userfaultfds that QEMU has kept while no worker served them.</summary>
    /// <exception cref="KernelException">A part of the memory has none any more.</exception>
    public UserfaultfdSet AdoptUserfaultfds() => UserfaultfdInjector.Adopt(ProcessId) is { Count: > 0 and <= UserfaultfdSet.Most } kept
        ? UserfaultfdSet.Find(Ram, kept)
        : throw new MigrationException($"QEMU (process {ProcessId}) has no userfaultfd any more: its memory can't be served.");

    /// <summary>Makes QEMU wait for the device state, and connects to it.</summary>
    public void ExpectDeviceState()
    {
        // A domain's QEMU may be of another user, and confined: its own directory is open to it.
        string path = _libvirt is null ? _directory.File("incoming.sock") : Path.Combine(_libvirt.Directory, "fctrans-incoming.sock");
        File.Delete(path);
        Monitor.MigrateIncoming($"unix:{path}");
        _state = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        _state.Connect(new UnixDomainSocketEndPoint(path));
        File.Delete(path);
    }

    /// <summary>Hands QEMU a piece of the device state.</summary>
    /// <exception cref="MigrationException">QEMU has closed its end: it did not accept the state.</exception>
    public void FeedDeviceState(ReadOnlySpan<byte> piece)
    {
        try
        {
            while (piece.Length > 0)
            {
                piece = piece[_state!.Send(piece)..];
            }
        }
        catch (SocketException e)
        {
            throw new MigrationException($"The destination's QEMU did not accept the device state: {Log()}", e);
        }
    }

    /// <summary>After the last piece: waits until QEMU has loaded it all and the VM could run.</summary>
    public void WaitLoaded()
    {
        _state!.Dispose();
        long began = Stopwatch.GetTimestamp();
        while (true)
        {
            string status = _process.HasExited ? "failed" : Monitor.QueryMigrate().Status;
            if (status == "completed")
            {
                return;
            }

            if (status == "failed" || Stopwatch.GetElapsedTime(began) > s_startTimeout)
            {
                throw new MigrationException($"The destination's QEMU did not load the device state ({status}): {Log()}");
            }

            Thread.Yield();
        }
    }

    /// <summary>Lets the VM's CPUs run, unless they do. May be tried again after it failed.</summary>
    /// <exception cref="IOException">QEMU or libvirt refused it, or did not answer.</exception>
    public void Run()
    {
        try
        {
            if (Monitor.QueryStatus().Running)
            {
                return;
            }

            if (_libvirt is not null)
            {
                DestinationDomain.Run(_libvirt, _directory.ReadSpec());
            }
            else
            {
                Monitor.Cont();
            }
        }
        finally
        {
            // A monitor has one client at a time: from here on it is free for others. And one that did not answer is asked anew.
            _monitor?.Dispose();
            _monitor = null;
        }
    }

    /// <summary>Waits until QEMU has ended (true), or somebody signals <paramref name="attention"/> or the time is over (false).</summary>
    public bool WaitExit(EventFd attention, TimeSpan timeout) => _process.WaitExit(attention, timeout);

    /// <summary>Ends a VM that never ran here; <see cref="Remove"/> clears away what it leaves.</summary>
    public void Kill()
    {
        if (_libvirt is not null && !_process.WaitExit(TimeSpan.Zero))
        {
            DestinationDomain.End(_libvirt, _process.WaitExit);
        }

        if (!_process.WaitExit(TimeSpan.Zero))
        {
            _process.SendSignal(9);
            _process.WaitExit(TimeSpan.FromSeconds(10));
        }
    }

    public void Dispose()
    {
        _state?.Dispose();
        _monitor?.Dispose();
        _process.Dispose();
        Ram.Dispose();
    }

    /// <summary>
    /// Removes the sockets and the PID file of a QEMU that was killed or gave up: left there, they would drive the next attempt
    /// from the VM's own paths. Another VM may have taken them since; then they are in use.
    /// </summary>
    private static void RemoveSockets(WorkerDirectory directory)
    {
        foreach (string path in directory.Read(Markers.QemuFiles)?.Split('\n') ?? [])
        {
            UnixSockets.RemoveStale(path);
            if (File.Exists(path) && !UnixSockets.IsSocket(path) && int.TryParse(File.ReadAllText(path), out int processId) && !Directory.Exists($"/proc/{processId}"))
            {
                File.Delete(path);
            }
        }
    }

    private static string PackedDirectory(string splitId) => $"/dev/shm/fctrans-{splitId}-packed";

    private static string RamDirectory(string splitId) => $"/dev/shm/fctrans-{splitId}-ram";

    private static QemuMonitor WaitForMonitor(int processId, string path, string logPath)
    {
        var slice = TimeSpan.FromMilliseconds(200);
        long began = Stopwatch.GetTimestamp();
        while (true)
        {
            try
            {
                return QemuMonitor.Connect(path, slice);
            }
            catch (MonitorException e)
            {
                if (!Directory.Exists($"/proc/{processId}") || Stopwatch.GetElapsedTime(began) > s_startTimeout)
                {
                    throw new MigrationException($"The destination's QEMU did not start: {ReadLog(logPath)}", e);
                }
            }
        }
    }

    /// <summary>What QEMU may have put into RAM at its start (ROMs) is not the guest's: the guest's comes.</summary>
    private void EmptyRam()
    {
        foreach (var block in Ram.Blocks)
        {
            int error = SparseFile.PunchHole(block.File, 0, block.PageCount << PageIndex.PageShift);
            if (error != 0)
            {
                throw new KernelException($"Emptying {block.Path}", error);
            }
        }
    }

    private string Log() => ReadLog(_libvirt is null ? _directory.File("qemu.log") : $"/var/log/libvirt/qemu/{_libvirt.Name}.log");

    private static string ReadLog(string path)
    {
        const int lastCharacters = 2000;
        string text = File.Exists(path) ? File.ReadAllText(path).Trim() : "";
        return text.Length == 0 ? "it wrote nothing." : text.Length > lastCharacters ? text[^lastCharacters..] : text;
    }
}
