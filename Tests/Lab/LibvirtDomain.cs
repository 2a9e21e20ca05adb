namespace FCtrans.Lab;

/// <summary>A Linux guest as a domain of a lab host's libvirt, which runs QEMU as a user who is not root.</summary>
internal static class LibvirtDomain
{
    /// <summary>What libvirt's QEMU may read lies there; the repository may be closed to its user.</summary>
    private const string Images = "/var/lib/libvirt/images";

    /// <summary>A command that puts the guest's files where QEMU can read them and starts the domain.</summary>
    public static List<string> StartCommand(LabGuest guest, LabGuestOptions options)
    {
        string xml = $"""
            <domain type='qemu'>
              <name>{guest.Name}</name>
              <uuid>{guest.Uuid}</uuid>
              <memory unit='MiB'>{options.MemoryBytes >> 20}</memory>
              <memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>
              <vcpu>{options.Cpus}</vcpu>
              <os>
                <type arch='x86_64' machine='q35'>hvm</type>
                <kernel>{Images}/kernel</kernel>
                <initrd>{Images}/initramfs</initrd>
                <cmdline>console=ttyS0 quiet loglevel=1 panic=1 {options.KernelArguments}</cmdline>
              </os>
              <features><acpi/><apic/></features>
              <devices>
                <emulator>/usr/bin/qemu-system-x86_64</emulator>
                <controller type='usb' model='none'/>
                <serial type='unix'><source mode='bind' path='{guest.RunDirectory}/serial'/><target port='0'/></serial>
                <memballoon model='virtio'/>
              </devices>
            </domain>
            """;
        string start = options.Persistent ? $"virsh -q define {Images}/{guest.Name}.xml && virsh -q start '{guest.Name}'" : $"virsh -q create {Images}/{guest.Name}.xml";
        return
        [
            "/bin/sh", "-c",
            $"mkdir -p {Images} && chmod 711 /var/lib/libvirt {Images} && cp '{LabPaths.Kernel(options.Kernel)}' {Images}/kernel && "
            + $"cp '{LabPaths.Initramfs(options.Kexec)}' {Images}/initramfs && chmod 644 {Images}/* && chmod 777 '{guest.RunDirectory}' && "
            + $"cat >{Images}/{guest.Name}.xml <<'XML'\n{xml}\nXML\n{start}",
        ];
    }
}
