# The connected hosts, by name, with figures of now.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $one, $two = $labHost.one, $labHost.two
}

Describe 'Get-KvmHost' {
    BeforeAll {
        $null = Connect-StandingHost @()
        $first = Connect-KvmHost $one.Address @ours -Name first
        $second = Connect-KvmHost $two.Address @ours -Name second
    }

    AfterAll {
        Disconnect-KvmHost *
    }

    It 'finds connected hosts by name and wildcard, and takes names from the pipeline' {
        Assert-Output Get-KvmHost @(Get-KvmHost)
        @(Get-KvmHost).Name -join ' ' | Should -Be 'first second'
        (Get-KvmHost f*).Name | Should -Be 'first'
        @('second', 'first' | Get-KvmHost).Name -join ' ' | Should -Be 'second first'
        ($first | Get-KvmHost).Name | Should -Be 'first'
        Get-KvmHost x* | Should -BeNullOrEmpty
    }

    It 'names one that is not connected, and goes on with the others' {
        $failures = $null
        (Get-KvmHost third, first -ErrorAction SilentlyContinue -ErrorVariable failures).Name | Should -Be 'first'
        Assert-Failure $failures[0] HostNotConnected ObjectNotFound third
    }

    It 'asks for figures of now' {
        $before = (Get-KvmHost first).RamDirectoryFreeBytes
        $null = Invoke-OnHost $one 'head -c 32M /dev/zero >/dev/shm/ballast'
        (Get-KvmHost first).RamDirectoryFreeBytes | Should -BeLessOrEqual ($before - 32MB)
        $null = Invoke-OnHost $one 'rm /dev/shm/ballast'
    }

    It 'completes the names of connected hosts' {
        Get-Completion 'Get-KvmHost fi' | Should -Be 'first'
    }

    It 'goes on when the connection was cut and has come back' {
        $null = Invoke-OnHost $two 'for p in $(pgrep sshd); do tr "\0" " " </proc/$p/cmdline | grep -q "^sshd: root" && kill -9 $p; done; true'
        # The first call may still meet the dying connection; the next one opens another.
        Wait-Until { (Get-KvmHost second -ErrorAction SilentlyContinue).IsConnected } 'the host answers again'
    }

    It 'ends at Ctrl+C while a host does not answer' {
        Assert-StopsWhileWaiting -SilentHost two -KnownAs second Get-KvmHost @{ Name = 'second' }
    }
}
