# Nothing of FCtrans is left on a host, unless a VM needs it there.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $two = $labHost.two
    $null = Connect-StandingHost @()

}

Describe 'Uninstall-KvmHostAgent' {
    BeforeEach {
        $kvmHost = Connect-KvmHost $two.Address @ours -Name second
    }

    AfterAll {
        Disconnect-KvmHost *
    }

    It 'does nothing with -WhatIf' {
        Uninstall-KvmHostAgent second -WhatIf
        'sec*', 'x*' | Uninstall-KvmHostAgent -WhatIf
        $kvmHost.IsConnected | Should -BeTrue
        [IO.File]::Exists($two.PathOf($kvmHost.AgentPath)) | Should -BeTrue
    }

    It 'leaves nothing of FCtrans on the host' {
        $path = $two.PathOf('/var/lib/fctrans')
        $gone = Get-KvmHost second | Uninstall-KvmHostAgent -PassThru
        Assert-Output Uninstall-KvmHostAgent $gone
        $gone.Name | Should -Be 'second'
        Get-KvmHost | Should -BeNullOrEmpty
        [IO.Directory]::Exists($path) | Should -BeFalse
        Invoke-OnHost $two 'ls -d /run/fctrans /dev/shm/fctrans-* 2>/dev/null; true' | Should -BeNullOrEmpty
    }

    It 'brings it again with the next connection' {
        [IO.File]::Exists($two.PathOf($kvmHost.AgentPath)) | Should -BeTrue
    }

    It 'leaves nothing in the homes of users either, and removes nothing that a link leads to' {
        $null = Invoke-OnHost $two 'for u in anna otto; do useradd -m -s /bin/sh -g users $u; sed -i "s/^$u:!/$u:*/" /etc/shadow; done'
        $elsewhere = '/srv/elsewhere/fctrans/agent/keep'
        $null = Invoke-OnHost $two "mkdir -p $([IO.Path]::GetDirectoryName($elsewhere)) && touch $elsewhere && chown -R otto /srv/elsewhere && mkdir /home/otto/.local && ln -s /srv/elsewhere /home/otto/.local/share"
        try {
            # Not root, and not by sudo: what the others may have, and who works there, is not for it to see.
            $null = Invoke-OnHost $two 'mkdir -p -m 700 /run/fctrans'
            $anna = Connect-KvmHost $two.Address @ours -Name anna -UserName anna
            $anna.AgentPath | Should -BeLike '/home/anna/.local/share/fctrans/agent/*'
            $said = @(Uninstall-KvmHostAgent anna 3>&1)
            "$said" | Should -BeLike "anna: Only what lay under '/home/anna/.local/share/fctrans' was removed:*/var/lib/fctrans*homes of other users*-Sudo*"
            [IO.Directory]::Exists($two.PathOf('/home/anna/.local/share/fctrans')) | Should -BeFalse
            [IO.File]::Exists($two.PathOf($kvmHost.AgentPath)) | Should -BeTrue

            $path = (Connect-KvmHost $two.Address @ours -Name anna -UserName anna).AgentPath
            Disconnect-KvmHost anna
            [IO.File]::Exists($two.PathOf($path)) | Should -BeTrue
            $said = @(Uninstall-KvmHostAgent second 3>&1)
            Invoke-OnHost $two 'ls -d /home/anna/.local/share/fctrans /var/lib/fctrans 2>/dev/null; true' | Should -BeNullOrEmpty
            [IO.File]::Exists($two.PathOf($elsewhere)) | Should -BeTrue
            "$said" | Should -BeLike 'second: This was not removed*: /home/otto/.local/share/fctrans.*'
        }
        finally { $null = Invoke-OnHost $two 'rm -rf /srv/elsewhere; userdel -r anna; userdel -r otto; true' }
    }

    It 'refuses while a VM depends on it, and says which' {
        # A worker's directory as a running main worker has it; the process is this shell's own on that host.
        $id = '0123456789abcdef0123456789abcdef'
        $null = Invoke-OnHost $two "mkdir -p -m 700 /run/fctrans/$id/sub && touch /run/fctrans/$id/sub/ready"
        $null = Invoke-OnHost $two "printf '\012\040$id\020\003\032\005bigvm' >/run/fctrans/$id/sub/spec"
        try {
            $failure = { Uninstall-KvmHostAgent second -ErrorAction Stop } | Should -Throw -PassThru
            Assert-Failure $failure AgentInUse InvalidOperation second
            $failure.Exception.Message | Should -BeLike "*'bigvm'*"
            [IO.File]::Exists($two.PathOf($kvmHost.AgentPath)) | Should -BeTrue
        }
        finally {
            $null = Invoke-OnHost $two "rm -rf /run/fctrans/$id"
        }
    }

    It 'completes names of connected hosts, and names one that is not connected' {
        Get-Completion 'Uninstall-KvmHostAgent -KvmHost ' | Should -Be 'second'
        Assert-Failure ({ Uninstall-KvmHostAgent third -ErrorAction Stop } | Should -Throw -PassThru) HostNotConnected ObjectNotFound third
    }

    It 'ends at Ctrl+C while the host does not answer, and removes nothing' {
        Assert-StopsWhileWaiting -SilentHost two -KnownAs second Uninstall-KvmHostAgent @{ KvmHost = 'second' }
        [IO.File]::Exists($two.PathOf($kvmHost.AgentPath)) | Should -BeTrue
    }
}
