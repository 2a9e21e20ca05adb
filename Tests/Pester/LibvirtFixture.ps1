# Dot-sourced in BeforeAll beside LabFixture.ps1: libvirt on lab hosts.

<# Starts libvirtd on a lab host, its QEMUs as a user who is not root, as on a real one. #>
function Start-Libvirt($LabHost, [string] $MemoryDirectory = '/dev/shm') {
    $null = Invoke-OnHost $LabHost @"
set -e
mkdir -p /etc/libvirt /var/lib/libvirt /run/guests
cat >/etc/libvirt/qemu.conf <<'CONF'
user = "nobody"
group = "nogroup"
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
memory_backing_dir = "$MemoryDirectory"
CONF
printf 'auth_unix_rw = "none"\nunix_sock_group = "root"\n' >/etc/libvirt/libvirtd.conf
libvirtd --daemon --config /etc/libvirt/libvirtd.conf
"@
    Wait-Until { (Invoke-LabHost -LabHost $LabHost -Command 'virsh -q uri').ExitCode -eq 0 } "libvirt answers on $($LabHost.Name)"
}

<# The state of a domain as its libvirt says it; empty when it has none of this name. #>
function Get-DomainState($LabHost, [string] $Name) {
    $result = Invoke-LabHost -LabHost $LabHost -Command "virsh -q domstate '$Name'"
    $result.ExitCode -eq 0 ? $result.Output.Trim() : ''
}
