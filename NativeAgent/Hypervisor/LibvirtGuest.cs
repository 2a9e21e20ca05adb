using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace FCtrans.Agent.Hypervisor;

/// <summary>
/// A QEMU that libvirt started: told by the PID file that libvirt keeps of each running domain, so that a command line alone, which
/// anybody can write, makes nobody a domain.
/// </summary>
internal sealed record LibvirtGuest(Guid Uuid, string Name, string Directory)
{
    private const string StateDirectory = "/run/libvirt/qemu";

    /// <summary>What stands for its monitor's path.</summary>
    public string MonitorPath => LibvirtMonitor.PathOf(Uuid);

    /// <summary>Whether libvirt runs this process as a domain.</summary>
    public static bool TryIdentify(int processId, QemuCommandLine line, [NotNullWhen(true)] out LibvirtGuest? guest)
    {
        guest = null;
        if (!Guid.TryParse(line.Uuid, out var uuid) || line.Name.Length == 0 || line.Name.Contains('/', StringComparison.Ordinal))
        {
            return false;
        }

        string text = ProcessFiles.ReadText($"{StateDirectory}/{line.Name}.pid").Trim();
        if (!int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int recorded) || recorded != processId)
        {
            return false;
        }

        guest = new LibvirtGuest(uuid, line.Name, DirectoryOf(line));
        return true;
    }

    /// <summary>The process that runs a domain; 0 when none does.</summary>
    public static int ProcessOf(string name) =>
        int.TryParse(ProcessFiles.ReadText($"{StateDirectory}/{name}.pid").Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out int pid) ? pid : 0;

    /// <summary>
    /// The directory that libvirt made for this run of the domain: QEMU, whatever user it runs as and whatever confines it, may make
    /// and reach sockets there. Its key lies there too, which is how the command line tells. Empty when it does not.
    /// </summary>
    private static string DirectoryOf(QemuCommandLine line) =>
        line.Objects.Where(o => o["qom-type"] == "secret").Select(o => o["file"])
            .FirstOrDefault(f => f is not null && f.EndsWith("/master-key.aes", StringComparison.Ordinal)) is { } key
            ? Path.GetDirectoryName(key)! : "";
}
