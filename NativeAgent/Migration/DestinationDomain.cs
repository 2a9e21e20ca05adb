using System.Globalization;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;

namespace FCtrans.Agent.Migration;

/// <summary>
/// The part that libvirt has in a VM that comes to this host: it starts QEMU, owns it as a domain, and is told to let it run and to
/// end it. What is in the VM is moved as without libvirt.
/// </summary>
internal static class DestinationDomain
{
    private static readonly TimeSpan s_endTimeout = TimeSpan.FromSeconds(10);

    /// <summary>Starts the domain, its CPUs standing still and its QEMU waiting for a migration.</summary>
    /// <returns>The process id of its QEMU.</returns>
    /// <exception cref="MigrationException">libvirt refused; the message has its reason.</exception>
    public static int Start(WorkerSpec spec, WorkerDirectory directory)
    {
        try
        {
            using var libvirt = LibvirtConnection.Open();
            string xml = LibvirtXml.ForDestination(spec.LibvirtXml);
            if (LibvirtGuest.ProcessOf(spec.VmName) is var running and > 0 && Directory.Exists($"/proc/{running}"))
            {
                throw new MigrationException($"The main host's libvirt runs a domain '{spec.VmName}' already.");
            }

            foreach (string needed in LibvirtXml.SocketDirectories(spec.LibvirtXml))
            {
                Directory.CreateDirectory(needed);
            }

            // Before it is there: a worker that dies in between leaves no domain that nobody knows of.
            directory.Mark(Markers.LibvirtDomain, spec.VmName);
            var domain = libvirt.CreatePaused(xml);
            return LibvirtGuest.ProcessOf(domain.Name) is > 0 and var processId
                ? processId
                : throw new MigrationException($"libvirt does not say which process runs the domain '{domain.Name}'.");
        }
        catch (Exception e) when (e is LibvirtException or CommandLineException)
        {
            throw new MigrationException($"The main host's libvirt did not start the domain: {e.Message}", e);
        }
    }

    /// <summary>The QEMU that libvirt started for this worker; null when there is none.</summary>
    public static QemuProcess? Find(WorkerDirectory directory)
    {
        string[] marker = directory.Read(Markers.LibvirtDomain)?.Split('\n') ?? [];
        if (marker.Length == 0 || QemuProcesses.TryOpen(LibvirtGuest.ProcessOf(marker[0])) is not { Libvirt: not null } process)
        {
            return null;
        }

        // Known by when it was started; before that was noted, by what only a domain of ours waits for.
        return marker.Length > 1 ? marker[1] == Started(process) ? process : null
            : process.CommandLine.SkipWhile(a => a != "-incoming").Skip(1).FirstOrDefault() == "defer" ? process : null;
    }

    /// <summary>From here on the domain is known whatever it does.</summary>
    public static void Note(WorkerDirectory directory, QemuProcess process) =>
        directory.Mark(Markers.LibvirtDomain, $"{process.Name}\n{Started(process)}");

    /// <summary>Lets the domain run, and has libvirt keep its description if that was asked for.</summary>
    public static void Run(LibvirtGuest guest, WorkerSpec? spec)
    {
        using var libvirt = LibvirtConnection.Open();
        libvirt.Resume(libvirt.FindByUuid(guest.Uuid));
        if (spec is not { LibvirtPersistentXml.Length: > 0 })
        {
            return;
        }

        try
        {
            libvirt.Define(spec.LibvirtPersistentXml);
        }
        catch (LibvirtException e)
        {
            // The VM runs: that its description was not kept is no reason to stop it.
            WorkerLog.Write($"the domain's description was not kept: {e.Message}");
        }
    }

    /// <summary>Ends the domain, by libvirt if that answers.</summary>
    public static void End(LibvirtGuest guest, Func<TimeSpan, bool> waitExit)
    {
        try
        {
            using var libvirt = LibvirtConnection.Open();
            libvirt.Destroy(libvirt.FindByUuid(guest.Uuid));
        }
        catch (LibvirtException e)
        {
            WorkerLog.Write($"libvirt did not end the domain '{guest.Name}': {e.Message}");
        }

        waitExit(s_endTimeout);
    }

    private static string Started(QemuProcess process) => process.StartTime.ToString(CultureInfo.InvariantCulture);
}
