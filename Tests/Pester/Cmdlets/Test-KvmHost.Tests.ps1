# What is checked on a host, and what is said to do about it.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $one, $two = $labHost.one, $labHost.two
    $null = Connect-StandingHost @()

}

Describe 'Test-KvmHost' {
    BeforeAll {
        $kvmHost = Connect-KvmHost $one.Address @ours -Name first
        $checks = @(Test-KvmHost first)
    }

    AfterAll {
        Disconnect-KvmHost *
    }

    It 'gives an object for each check, with a remedy unless it passed' {
        foreach ($name in 'root', 'agent', 'kernel', 'swap', 'huge-pages', 'libvirt', 'userfaultfd', 'pagemap-scan', 'ptrace', 'ram-directory', 'qemu', 'memory', 'data-address', 'workers') {
            @($checks | Where-Object Check -EQ $name) | Should -HaveCount 1
        }

        Assert-Output Test-KvmHost $checks
        foreach ($check in $checks) {
            $check.Result | Should -BeIn 'Passed', 'Warning', 'Failed'
            [bool] $check.Remedy | Should -Be ($check.Result -ne 'Passed')
            $check.HostName | Should -Be 'first'
        }

        ($checks | Where-Object Check -EQ 'data-address').Result | Should -Be 'Passed'
        ($checks | Where-Object Check -EQ 'kernel').Detail | Should -Be "Linux $($kvmHost.KernelRelease)."
        ($checks | Where-Object Check -EQ 'agent').Detail | Should -BeLike "*$($kvmHost.AgentPath)."
    }

    It 'takes hosts from the pipeline, and a part' {
        @($kvmHost | Test-KvmHost -Part Sub).Check | Should -Not -Contain 'qemu'
        @('first' | Test-KvmHost -Part Main).Check | Should -Contain 'qemu'
        Assert-Failure ({ Test-KvmHost nowhere -ErrorAction Stop } | Should -Throw -PassThru) HostNotConnected ObjectNotFound nowhere
    }

    It 'finds an address that the host does not have' {
        $null = Connect-KvmHost $two.Address @ours -Name second -DataAddress 198.18.7.7
        (Test-KvmHost second | Where-Object Check -EQ 'data-address').Result | Should -Be 'Failed'
        # DataPortRefused, as a check: the others can't reach what is not there.
        $reachable = Test-KvmHost first, second | Where-Object { $_.Check -eq 'reachable' -and $_.HostName -eq 'second' }
        "$($reachable.Result): $($reachable.Detail)" | Should -BeLike "Failed: 'second' can't open a port*"
        $reachable.Remedy | Should -BeLike '*-DataAddress*'
    }

    It 'finds whether several hosts reach each other, and which does not' {
        $null = Connect-KvmHost $two.Address @ours -Name second
        $reached = @(Test-KvmHost first, second | Where-Object Check -EQ 'reachable')
        @($reached.HostName) -join ' ' | Should -Be 'first second'
        @($reached.Result) -join ' ' | Should -Be 'Passed Passed'
        $reached[0].Detail | Should -Match "^From second: $([regex]::Escape($one.Address)) answers after \d+ µs\.$"
        $null = Invoke-OnHost $two "ip route add blackhole $($one.Address)/32"
        try {
            $reached = @('first', 'second' | Test-KvmHost | Where-Object Check -EQ 'reachable')
            @($reached.Result) -join ' ' | Should -Match '^Failed'
            $reached[0].Remedy | Should -Match 'firewalls'
        }
        finally { $null = Invoke-OnHost $two "ip route del blackhole $($one.Address)/32" }
    }

    It 'finds huge pages where guests'' memory lies, by that mount''s own option' {
        if (($checks | Where-Object Check -EQ 'huge-pages').Detail -notlike '/dev/shm is mounted with huge=never*') { Set-ItResult -Skipped -Because 'this kernel forbids, forces or lacks them'; return }
        $null = Invoke-OnHost $one 'mount -o remount,huge=within_size /dev/shm'
        try { $check = Test-KvmHost first | Where-Object Check -EQ 'huge-pages' }
        finally { $null = Invoke-OnHost $one 'mount -o remount,huge=never /dev/shm' }
        "$($check.Result) $($check.Detail) $($check.Remedy)" | Should -Be 'Warning /dev/shm is mounted with huge=within_size. mount -o remount,huge=never /dev/shm'
        (Test-KvmHost first | Where-Object Check -EQ 'huge-pages').Result | Should -Be 'Passed'
    }

    It 'completes hosts and parts' {
        Get-Completion 'Test-KvmHost f' | Should -Be 'first'
        Get-Completion 'Test-KvmHost -Part ' | Should -Be @('Main', 'Source', 'Sub')
    }

    It 'ends at Ctrl+C while a host does not answer' {
        Assert-StopsWhileWaiting -SilentHost one -KnownAs first Test-KvmHost @{ KvmHost = 'first' }
    }
}
