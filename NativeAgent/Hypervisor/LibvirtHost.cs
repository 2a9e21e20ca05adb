namespace FCtrans.Agent.Hypervisor;

/// <summary>libvirt on this host: whether it is there and answers.</summary>
internal static class LibvirtHost
{
    /// <returns>Whether it can be used, and what was seen; an empty text when it is not installed.</returns>
    public static (bool Available, string Detail) Look()
    {
        if (LibvirtConnection.SocketPath() is not { } path)
        {
            return HostCapabilities.FindProgram("libvirtd").Length > 0 || HostCapabilities.FindProgram("virtqemud").Length > 0
                ? (false, "libvirt is installed, but its daemon does not run.")
                : (false, "");
        }

        try
        {
            using var libvirt = LibvirtConnection.Open();
            return (true, $"libvirt {libvirt.Version()} answers at {path}.");
        }
        catch (LibvirtException e)
        {
            return (false, e.Message);
        }
    }
}
