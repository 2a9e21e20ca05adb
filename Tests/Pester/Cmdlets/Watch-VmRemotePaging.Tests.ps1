# Remote paging, live.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $split = Get-StandingSplit
}

Describe 'Watch-VmRemotePaging' {
    It 'gives an object for each interval where the output is no terminal, by name, wildcard and object' {
        $samples = @(Watch-VmRemotePaging paged -Interval 0.1 -Count 2)
        Assert-Output Watch-VmRemotePaging $samples
        $samples | Should -HaveCount 2
        $samples[1].Time | Should -BeGreaterThan $samples[0].Time
        "$($samples[1].VM) $($samples[1].State)" | Should -Be 'paged paging'
        foreach ($same in (Watch-VmRemotePaging p* -Interval 0.1 -Count 1), (Get-KvmVm paged | Watch-VmRemotePaging -Interval 0.1 -Count 1)) { $same.VM | Should -Be 'paged' }
        Watch-VmRemotePaging x* -Interval 0.1 -Count 1 | Should -BeNullOrEmpty
    }

    It 'names a VM that is not split, and does not wait for it' {
        Assert-Failure ({ Watch-VmRemotePaging shared -ErrorAction Stop } | Should -Throw -PassThru) MigrationNotFound ObjectNotFound shared
        Watch-VmRemotePaging shared -ErrorAction SilentlyContinue | Should -BeNullOrEmpty
    }

    It 'goes on until Ctrl+C' {
        $started = Start-Cmdlet Watch-VmRemotePaging @{ VM = 'paged'; Interval = 0.1 }
        Wait-Until { $started.Output.Count -ge 3 } 'two intervals are over'
        Stop-Cmdlet $started
    }

    It 'ends at Ctrl+C while a host does not answer' {
        Assert-StopsWhileWaiting sub Watch-VmRemotePaging @{ KvmHost = 'sub' }
    }

    It 'completes VMs and hosts' {
        Get-Completion 'Watch-VmRemotePaging pag' | Should -Be 'paged'
        Get-Completion 'Watch-VmRemotePaging -KvmHost m' | Should -Be 'main'
    }
}
