# What the machine must have besides the .NET SDK: Debian packages, installed where they are missing.

<# Debian package -> what it is needed for. Looked up by dpkg-query, so a second run asks no network. #>
$packagesToBuild = [ordered] @{
    'gcc'        = 'links the agent, compiles the ABI tests'
    'libc6-dev'  = 'links the agent'
    'zlib1g-dev' = 'links the agent'
}
$packagesToRun = [ordered] @{
    'binutils'         = 'assembles the bare guest'
    'busybox-static'   = "the lab guest's user space"
    'cpio'             = "packs the lab guest's initramfs"
    'iproute2'         = "the lab's network"
    'kmod'             = "the lab guest's modules and what they need"
    'libvirt-clients'  = "the lab hosts' virsh"
    'libvirt-daemon'   = "the lab hosts' libvirt"
    'libvirt-daemon-driver-qemu' = "the lab hosts' libvirt"
    'openssh-client'   = "the lab's keys"
    'openssh-server'   = "the lab hosts' sshd"
    'qemu-system-x86'  = 'the VMs'
    'sudo'             = 'a user of the lab hosts who is not root'
    'util-linux'       = "the lab's namespaces"
    'xz-utils'         = "unpacks the lab guest's kernel"
}

$packagesToTest = [ordered] @{
    'chromium' = 'looks at the reports'
}

function Install-DebianPackage([string[]] $Name) {
    if (-not (Get-Command dpkg-query -CommandType Application -ErrorAction Ignore)) {
        Say "This is not Debian: make sure that these are there: $($Name -join ', ')."
        return
    }

    $installed = & dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' 2>$null
    $missing = @($Name | Where-Object { $installed -notcontains "installed $_" })
    if ($missing.Count -eq 0) { return }
    if ([Environment]::UserName -ne 'root') {
        throw "These Debian packages are missing and only root can install them: apt-get install --no-install-recommends $($missing -join ' ')"
    }

    Say "Installing Debian packages: $($missing -join ', ')"
    # No daemon is to start (sshd): the lab runs its own. The machine's own policy, where there is one, stays.
    $policy = '/usr/sbin/policy-rc.d'
    $ours = -not [IO.File]::Exists($policy)
    $frontend = $env:DEBIAN_FRONTEND
    try {
        if ($ours) {
            [IO.File]::WriteAllText($policy, "#!/bin/sh`nexit 101`n")
            [IO.File]::SetUnixFileMode($policy, 'UserRead, UserWrite, UserExecute, GroupRead, GroupExecute, OtherRead, OtherExecute')
        }

        $env:DEBIAN_FRONTEND = 'noninteractive'
        Invoke-Program 'Reading the package lists' @('apt-get', '-q', 'update') -Silently
        Invoke-Program 'Installing packages' (@('apt-get', '-q', 'install', '-y', '--no-install-recommends') + $missing) -Silently
    }
    finally {
        $env:DEBIAN_FRONTEND = $frontend
        if ($ours) { [IO.File]::Delete($policy) }
    }
}
