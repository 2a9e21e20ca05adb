# Dot-sourced in BeforeAll beside LabFixture.ps1: libvirt on lab hosts.

<# Starts libvirtd on a lab host, its QEMUs as a user who is not root, as on a real one. #>
function Start-Libvirt($LabHost, [string] $MemoryDirectory = '/dev/shm') {
    $null = Invoke-OnHost $LabHost @"
set -e
# As Debian's libvirt-daemon-system makes it, which would start daemons too.
id libvirt-qemu >/dev/null 2>&1 || useradd --system --user-group --home-dir /var/lib/libvirt --shell /usr/sbin/nologin libvirt-qemu
mkdir -p /etc/libvirt /var/lib/libvirt /var/log/libvirt/qemu /var/cache/libvirt /run/guests
cat >/etc/libvirt/qemu.conf <<'CONF'
user = "libvirt-qemu"
group = "libvirt-qemu"
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

<# What a domain boots from has to be at the same place on both hosts, as its disks have. #>
function Copy-DomainImage($From, $To) {
    $images = '/var/lib/libvirt/images'
    $null = Invoke-OnHost $To "mkdir -p $images && chmod 711 /var/lib/libvirt $images"
    foreach ($file in 'kernel', 'initramfs') { [IO.File]::Copy($From.PathOf("$images/$file"), $To.PathOf("$images/$file"), $true) }
    $null = Invoke-OnHost $To "chmod 644 $images/*"
}
