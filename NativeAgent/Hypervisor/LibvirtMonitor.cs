namespace FCtrans.Agent.Hypervisor;

/// <summary>
/// The monitor of a domain's QEMU, through libvirt: libvirt holds QEMU's only machine protocol socket and passes commands on. Owns
/// its connection to libvirt; one thread at a time.
/// </summary>
internal sealed class LibvirtMonitor : IDisposable
{
    private const string Prefix = "libvirt:";

    private readonly LibvirtConnection _libvirt;
    private readonly LibvirtDomain _domain;

    private LibvirtMonitor(LibvirtConnection libvirt, LibvirtDomain domain)
    {
        _libvirt = libvirt;
        _domain = domain;
    }

    /// <summary>What stands for the path of a domain's monitor.</summary>
    public static string PathOf(Guid uuid) => Prefix + uuid;

    public static bool TryParse(string path, out Guid uuid)
    {
        uuid = default;
        return path.StartsWith(Prefix, StringComparison.Ordinal) && Guid.TryParse(path.AsSpan(Prefix.Length), out uuid);
    }

    /// <exception cref="MonitorException">libvirt does not answer, or has no such domain.</exception>
    public static LibvirtMonitor Open(Guid uuid)
    {
        LibvirtConnection? libvirt = null;
        try
        {
            libvirt = LibvirtConnection.Open();
            return new LibvirtMonitor(libvirt, libvirt.FindByUuid(uuid));
        }
        catch (LibvirtException e)
        {
            libvirt?.Dispose();
            throw new MonitorException(MonitorException.Unreachable, e.Message, e);
        }
    }

    /// <exception cref="MonitorException">libvirt refused, or went away.</exception>
    public string Execute(string json)
    {
        try
        {
            return _libvirt.MonitorCommand(_domain, json);
        }
        catch (LibvirtException e)
        {
            throw new MonitorException(MonitorException.Closed, e.Message, e);
        }
    }

    public void Dispose() => _libvirt.Dispose();
}
