using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using FCtrans.Contracts;

namespace FCtrans.Agent.Hypervisor;

/// <summary>
/// Whether the QEMU of a command line could be started on this host to receive its VM: the program and its machine type, the files and ports
/// that it opens, the processor that it shows the guest. Starts no VM and changes nothing.
/// </summary>
internal static class DestinationChecks
{
    private const string Passed = "passed";
    private const string Failed = "failed";
    private const int VncFirstPort = 5900;

    /// <summary>Options whose value is a file's path.</summary>
    private static readonly string[] s_files =
        ["hda", "hdb", "hdc", "hdd", "cdrom", "fda", "fdb", "sd", "mtdblock", "pflash", "kernel", "initrd", "dtb", "bios", "option-rom"];

    private static readonly string[] s_written = ["hda", "hdb", "hdc", "hdd", "fda", "fdb", "sd", "mtdblock", "pflash"];

    public static IEnumerable<HostCheck> Run(CheckDestinationRequest request)
    {
        var line = QemuCommandLine.Parse([.. request.CommandLine]);
        yield return Machine(line);
        if (request.Kvm)
        {
            yield return Kvm();
            if (Processor(line, request.ProcessorFlags, ProcessorFlags()) is { } processor)
            {
                yield return processor;
            }
        }

        yield return Files(line);
        yield return Ports(line);
    }

    /// <summary>What the first processor can do, as the kernel names it.</summary>
    public static string[] ProcessorFlags()
    {
        string? line = File.ReadLines("/proc/cpuinfo").FirstOrDefault(l => l.StartsWith("flags", StringComparison.Ordinal));
        return line?[(line.IndexOf(':') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries) ?? [];
    }

    /// <summary>
    /// null for a named processor model: only the QEMU that is started knows what of it this host lacks, and is asked then
    /// (<see cref="Migration.ProcessorFeatures"/>).
    /// </summary>
    internal static HostCheck? Processor(QemuCommandLine line, IEnumerable<string> source, string[] here)
    {
        string model = (line.All("cpu").LastOrDefault() ?? "").Split(',')[0];
        if (model is not ("host" or "max"))
        {
            return null;
        }

        string[] missing = [.. source.Except(here).Order(StringComparer.Ordinal)];
        return Make(
            "processor", missing.Length == 0, missing.Length == 0
                ? $"-cpu {model}: this host's processor can all that the source's can"
                : $"The guest was given the source's processor (-cpu {model}), which can what this host's can't: {string.Join(" ", missing)}.",
            "Use a main host with the same processor, or start the VM with a named model that both have, such as -cpu Skylake-Server.");
    }

    /// <summary>Paths that QEMU will open here, and whether to write.</summary>
    internal static IEnumerable<(string Path, bool Write)> FilesOf(QemuCommandLine line)
    {
        foreach (var option in line.Options)
        {
            string value = option.Value ?? "";
            switch (option.Name)
            {
                case "":
                    yield return (value, true);
                    break;
                case "drive":
                    var drive = KeyValueList.Parse(value);
                    yield return (drive["file"] ?? drive["file.filename"] ?? "", !drive.IsOn("readonly") && drive["media"] != "cdrom");
                    break;
                case "blockdev":
                    var node = KeyValueList.Parse(value, "driver");
                    bool readOnly = node.Pairs.Any(p => p.Key == "read-only" && p.Value is "on" or "true" or "yes");
                    foreach (var (key, path) in node.Pairs)
                    {
                        if (key == "filename" || key.EndsWith(".filename", StringComparison.Ordinal))
                        {
                            yield return (path, !readOnly);
                        }
                    }

                    break;
                default:
                    if (s_files.Contains(option.Name))
                    {
                        yield return (value, s_written.Contains(option.Name));
                    }

                    break;
            }
        }
    }

    /// <summary>TCP ports that QEMU will listen on here.</summary>
    internal static IEnumerable<int> PortsOf(QemuCommandLine line)
    {
        foreach (string value in line.All("vnc"))
        {
            // HOST:DISPLAY; no Unix socket, no display "none", and no range from which QEMU takes what is free.
            string address = value.Split(',')[0];
            if (!address.StartsWith("unix:", StringComparison.Ordinal) && !value.Contains(",to=", StringComparison.Ordinal)
                && int.TryParse(address[(address.LastIndexOf(':') + 1)..], NumberStyles.None, CultureInfo.InvariantCulture, out int display)
                && display <= IPEndPoint.MaxPort - VncFirstPort)
            {
                yield return VncFirstPort + display;
            }
        }

        foreach (string value in line.All("spice"))
        {
            var spice = KeyValueList.Parse(value);
            foreach (string? port in (string?[])[spice["port"], spice["tls-port"]])
            {
                if (int.TryParse(port, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number is > 0 and <= IPEndPoint.MaxPort)
                {
                    yield return number;
                }
            }
        }

        foreach (string option in (string[])["netdev", "nic", "net"])
        {
            foreach (var (key, value) in line.All(option).SelectMany(v => KeyValueList.Parse(v, "type").Pairs))
            {
                // tcp:HOSTADDRESS:PORT-GUESTADDRESS:PORT
                string[] parts = value.Split('-')[0].Split(':');
                if (key == "hostfwd" && parts is ["tcp" or "", _, var port]
                    && int.TryParse(port, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number is > 0 and <= IPEndPoint.MaxPort)
                {
                    yield return number;
                }
            }
        }
    }

    private static HostCheck Machine(QemuCommandLine line)
    {
        const string name = "qemu-machine";
        string program = Locate(line.Executable);
        string version = QemuVersions.OfFile(program);
        if (version.Length == 0)
        {
            return Make(
                name, false, $"The VM runs under {line.Executable}, which this host does not have, or not as a program of root's.",
                "Install the same QEMU at the same path, or give the path of this host's with -QemuCommandLine.");
        }

        string machines = Ask(program, "-machine", "help");
        bool known = machines.Split('\n').Any(l => l.Split(' ')[0] == line.MachineType);
        return Make(
            name, known, known ? $"QEMU {version} has the machine {line.MachineType}" : $"QEMU {version} here has no machine {line.MachineType}.",
            "Install a QEMU that has it: the source's version, or a later one.");
    }

    private static HostCheck Kvm()
    {
        string detail = "/dev/kvm can be opened";
        bool good = true;
        try
        {
            using var file = File.OpenHandle("/dev/kvm", FileMode.Open, FileAccess.ReadWrite);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            (good, detail) = (false, $"The VM runs under KVM, and /dev/kvm can't be opened here: {e.Message}");
        }

        return Make("kvm", good, detail, "Load kvm_intel or kvm_amd, and switch virtualization on in the firmware.");
    }

    private static HostCheck Files(QemuCommandLine line)
    {
        int opened = 0;
        var problems = new List<string>();
        foreach (var (given, write) in FilesOf(line))
        {
            string path = given.StartsWith("file:", StringComparison.Ordinal) ? given[5..] : given;
            if (path.Length == 0 || (path[0] != '/' && path.Contains(':', StringComparison.Ordinal)) || path.StartsWith("/dev/fdset/", StringComparison.Ordinal))
            {
                // Nothing, or a protocol (nbd:, rbd:, json:): QEMU itself finds out.
                continue;
            }

            if (path[0] != '/')
            {
                problems.Add($"{path} is no whole path, so it is another file on another host.");
                continue;
            }

            try
            {
                using var file = File.OpenHandle(path, FileMode.Open, write ? FileAccess.ReadWrite : FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
                opened++;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                problems.Add($"{path} can't be opened here{(write ? " for writing" : "")}: {e.Message}");
            }
        }

        return Make(
            "disks", problems.Count == 0, problems.Count == 0 ? $"{opened} files of the VM can be opened" : string.Join(" ", problems),
            "Disks have to lie on storage that both hosts share, under the same whole path; other files have to be copied to this host.");
    }

    private static HostCheck Ports(QemuCommandLine line)
    {
        var taken = new List<int>();
        int[] ports = [.. PortsOf(line).Distinct()];
        foreach (int port in ports)
        {
            using var socket = new Socket(AddressFamily.InterNetworkV6, SocketType.Stream, ProtocolType.Tcp) { DualMode = true };
            try
            {
                // A connection that has just ended does not hold the port, as it does not for QEMU.
                socket.SetRawSocketOption(1, 2, BitConverter.GetBytes(1));
                socket.Bind(new IPEndPoint(IPAddress.IPv6Any, port));
                socket.Listen(1);
            }
            catch (SocketException)
            {
                taken.Add(port);
            }
        }

        return Make(
            "ports", taken.Count == 0, taken.Count == 0 ? $"{ports.Length} ports that the VM's QEMU listens on are free" : $"In use on this host: TCP port {string.Join(", ", taken)}.",
            "Free them, or give other ones with -QemuCommandLine.");
    }

    private static HostCheck Make(string name, bool passed, string detail, string remedy)
    {
        var check = new HostCheck { Name = name, Result = passed ? Passed : Failed, Detail = detail, Remedy = passed ? "" : remedy };
        check.Parts.Add("main");
        return check;
    }

    private static string Locate(string executable) => executable.Contains('/', StringComparison.Ordinal)
        ? executable
        : (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Select(d => Path.Combine(d, executable)).FirstOrDefault(File.Exists) ?? executable;

    private static string Ask(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardInput = true });
        if (process is null)
        {
            return "";
        }

        process.StandardInput.Close();
        var output = process.StandardOutput.ReadToEndAsync();
        if (!output.Wait(TimeSpan.FromSeconds(10)))
        {
            process.Kill();
            return "";
        }

        process.WaitForExit(5000);
        return output.Result;
    }
}
