# The remote paging of split VMs.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $split = Get-StandingSplit
}

Describe 'Get-VmRemotePaging' {
    It 'gives the figures of a VM by name, wildcard, object and host' {
        $paging = Get-VmRemotePaging paged
        Assert-Output Get-VmRemotePaging $paging
        "$($paging.VM) $($paging.State) $($paging.MainHost) $($paging.SubHosts[0, 1]) $($paging.SubHostStates[0, 1])" | Should -Be 'paged paging main sub sub2 serving serving'
        foreach ($same in (Get-VmRemotePaging p*), (Get-KvmVm paged | Get-VmRemotePaging), ($split | Get-VmRemotePaging), (Get-VmRemotePaging -KvmHost main)) { $same.SplitId | Should -Be $split.SplitId }
        Get-VmRemotePaging -KvmHost source | Should -BeNullOrEmpty
    }

    It 'tells the latencies over time, and they are all the latencies' {
        Wait-Until { (Get-VmRemotePaging paged).RemoteFaultLatency.Count -gt 0 } 'a page was fetched'
        $paging = Get-VmRemotePaging paged
        $sum = 0
        foreach ($interval in $paging.RemoteFaultTimeline) { $sum += $interval.Count }
        # Faults go on while both are read.
        [Math]::Abs([double] $sum - $paging.RemoteFaultLatency.Count) | Should -BeLessOrEqual (100 + 0.2 * $sum)
        $some = @($paging.RemoteFaultTimeline | Where-Object Count)[0]
        $some.PSObject.TypeNames[0] | Should -Be 'FCtrans.FaultLatencyInterval'
        $some.MedianMicroseconds | Should -BeGreaterThan 0
        $some.MaxMicroseconds | Should -BeGreaterOrEqual $some.MedianMicroseconds
        [Math]::Abs(($some.Time - [datetime]::Now).TotalHours) | Should -BeLessThan 1
    }

    It 'goes on with -Continuous until Ctrl+C' {
        $started = Start-Cmdlet Get-VmRemotePaging @{ VM = 'paged'; Continuous = $true; Interval = 0.1 }
        Wait-Until { $started.Output.Count -ge 3 } 'two intervals are over'
        Stop-Cmdlet $started
        Assert-Output Get-VmRemotePaging $started.Output[2]
    }

    It 'shows each interval when it is over, also where the output goes into a pipe' {
        $lines = Read-Redirected main 'Get-VmRemotePaging paged -Continuous -Interval 0.1' '^\d\d:\d\d:\d\d paged +paging '
        @($lines | Where-Object { $_ }) | Should -HaveCount 3
    }

    It 'takes hosts from the pipeline: the VMs there, and no VM of its name' {
        $main, $source = Get-KvmHost main, source
        ($main | Get-VmRemotePaging).SplitId | Should -Be $split.SplitId
        $source | Get-VmRemotePaging | Should -BeNullOrEmpty
        $started = Start-Cmdlet Get-VmRemotePaging @{ VM = $main; Continuous = $true; Interval = 0.1 }
        Wait-Until { $started.Output.Count -ge 2 } 'an interval is over'
        Stop-Cmdlet $started
        $started.Output[1].VM | Should -Be 'paged'
        Disconnect-KvmHost source
        try { Assert-Failure ({ $source | Get-VmRemotePaging -ErrorAction Stop } | Should -Throw -PassThru) HostNotConnected ObjectNotFound source }
        finally { $null = Get-StandingSplit }
    }

    It 'names a VM that is not split' {
        Assert-Failure ({ Get-VmRemotePaging shared -ErrorAction Stop } | Should -Throw -PassThru) MigrationNotFound ObjectNotFound shared
        Assert-Failure ({ Get-VmRemotePaging shared -Continuous -ErrorAction Stop } | Should -Throw -PassThru) MigrationNotFound ObjectNotFound shared
    }

    It 'completes VMs and hosts' {
        Get-Completion 'Get-VmRemotePaging pag' | Should -Be 'paged'
        Get-Completion 'Get-VmRemotePaging -KvmHost m' | Should -Be 'main'
    }

    It 'ends at Ctrl+C while a host does not answer' {
        Assert-StopsWhileWaiting sub Get-VmRemotePaging @{ KvmHost = 'sub' }
    }
}
