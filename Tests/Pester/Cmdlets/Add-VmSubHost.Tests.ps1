# Giving VMs another sub-host while they run.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $split = Get-StandingSplit
    $null = Connect-StandingHost source, main, sub, sub2, one
    $guest = $global:FCtransStandingLab.Guest.paged
}

Describe 'Add-VmSubHost' {
    It 'adds nothing with -WhatIf' {
        Add-VmSubHost paged one -WhatIf
        (Get-VmRemotePaging paged).SubHosts | Should -Not -Contain 'one'
        Get-LeftOver $labHost.one | Should -BeNullOrEmpty
    }

    It 'takes wildcards, and leaves out who has a part in the split already' {
        # Had one of them its turn, it would be an error, or another sub-host.
        Add-VmSubHost paged nobod*, ma*, s* -PassThru -ErrorAction Stop | Should -BeNullOrEmpty
        (Get-VmRemotePaging paged).SubHosts -join ' ' | Should -BeLike 'sub sub2*'
    }

    It 'completes VMs and hosts' {
        Get-Completion 'Add-VmSubHost pag' | Should -Be 'paged'
        Get-Completion 'Add-VmSubHost paged on' | Should -Be 'one'
    }

    It 'names what can not be, and leaves nothing on a host' {
        Assert-Failure ({ Add-VmSubHost nobody one -ErrorAction Stop } | Should -Throw -PassThru) MigrationNotFound ObjectNotFound nobody
        Assert-Failure ({ Add-VmSubHost paged nowhere -ErrorAction Stop } | Should -Throw -PassThru) HostNotConnected ObjectNotFound paged
        Assert-Failure ({ Add-VmSubHost paged main -ErrorAction Stop } | Should -Throw -PassThru) HostNamedTwice InvalidArgument paged
        Assert-Failure ({ Add-VmSubHost paged sub2 -ErrorAction Stop } | Should -Throw -PassThru) SubHostNotAdded InvalidOperation paged
        Assert-Failure ({ Add-VmSubHost paged @{ KvmHost = 'one'; Memory = '4KB' } -ErrorAction Stop } | Should -Throw -PassThru) SubHostsTooSmall ResourceUnavailable paged
        Get-LeftOver $labHost.one | Should -BeNullOrEmpty
        # An address that it has not: its worker is prepared and can't start.
        $null = Connect-KvmHost $labHost.two.Address @ours -Name lonely -DataAddress 192.0.2.1
        try { Assert-Failure ({ Add-VmSubHost paged lonely -ErrorAction Stop } | Should -Throw -PassThru) SubHostNotAdded InvalidOperation paged }
        finally { Disconnect-KvmHost lonely }
        Get-LeftOver $labHost.two | Should -BeNullOrEmpty
        (Get-VmRemotePaging paged).SubHosts | Should -Not -Contain 'lonely'
    }

    It 'ends at Ctrl+C while the host does not answer' {
        Assert-StopsWhileWaiting one Add-VmSubHost @{ VM = 'paged'; SubHost = 'one' }
        (Get-VmRemotePaging paged).SubHosts | Should -Not -Contain 'one'
    }

    It 'has the VM use the new host at once, over a restart of its worker, until the host is removed' {
        $paging = Get-VmRemotePaging paged | Add-VmSubHost -SubHost @{ KvmHost = 'on*'; Memory = '96MB' } -PassThru
        Assert-Output Add-VmSubHost $paging
        $paging.SubHosts[-1] | Should -Be 'one'
        $paging.SubHostStates[-1] | Should -Be 'serving'
        $before = $paging.LimitBytes
        # What has an old copy elsewhere would leave for there again.
        (Invoke-LabGuest -Guest $guest -Command 'fresh 24').errors | Should -Be 0
        Set-VmRemotePaging paged -MainMemory 40MB
        try {
            Wait-Until { (Get-VmRemotePaging paged).RemoteBytesBySubHost[-1] -gt 0 } 'the new host has memory of the VM'
            $killed = Stop-Worker $labHost.main main
            Wait-Until { (Invoke-OnHost $labHost.main 'cat /run/fctrans/*/main/worker.pid') -ne $killed } 'a new worker has started'
            (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
            Wait-Until { (Get-VmRemotePaging paged).RemoteBytesBySubHost[-1] -gt 0 } 'it knows the new host'
            # While it is emptied, the guest frees a part of that.
            $job = Remove-VmSubHost paged one -AsJob
            $null = Invoke-LabGuest -Guest $guest -Command 'free 24'
            $null = Wait-Job $job -Timeout 120
            $left = Receive-Job $job
            Remove-Job $job
            "$($left.SubHosts[-1]) $($left.SubHostStates[-1]) $($left.RemoteBytesBySubHost[-1])" | Should -Be 'one left 0'
            Wait-Until { -not (Get-LeftOver $labHost.one) } 'nothing is left on it'
            (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
        }
        finally { Set-VmRemotePaging paged -MainMemory $before }
    }

    It 'has copies of two made whole when one of their hosts has died' {
        # It has been one before: what it might still have is thrown away.
        Add-VmSubHost paged one
        $before = (Get-VmRemotePaging paged).LimitBytes
        $set = Set-VmRemotePaging paged -Copies 2 -MainMemory 40MB -PassThru
        $set.Copies | Should -Be 2
        try {
            Wait-Until { $p = Get-VmRemotePaging paged; $p.ShortBytes -eq 0 -and $p.RemoteBytesBySubHost[-1] -gt 4MB } 'each page is at two hosts'
            $null = Invoke-OnHost $labHost.one 'kill -9 $(cat /run/fctrans/*/sub/supervisor.pid) $(cat /run/fctrans/*/sub/worker.pid); rm -rf /dev/shm/fctrans-* /run/fctrans/*'
            Wait-Until { (Get-VmRemotePaging paged).State -eq 'degraded' } 'it is said that a host is missing'
            (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
            Remove-VmSubHost paged one -Lost -Force
            Wait-Until { (Get-VmRemotePaging paged).ShortBytes -eq 0 } 'the others have made up for it'
            $paging = Get-VmRemotePaging paged
            "$($paging.State) $($paging.LostBytes) $($paging.SubHostStates[-1])" | Should -Be 'paging 0 lost'
            $killed = Stop-Worker $labHost.main main
            Wait-Until { (Invoke-OnHost $labHost.main 'cat /run/fctrans/*/main/worker.pid') -ne $killed } 'a new worker has started'
            (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
            "$((Get-VmRemotePaging paged).Copies) $((Get-VmRemotePaging paged).LostBytes)" | Should -Be '2 0'
        }
        finally { Set-VmRemotePaging paged -Copies 1 -MainMemory $before }
    }
}
