# Giving back what a guest has freed.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $null = Connect-StandingHost source, tiny
    $source = Get-KvmHost source
    $shared = $global:FCtransStandingLab.Guest.shared
}

Describe 'Optimize-VmMemory' {
    It 'says what it would give back, then gives it back' {
        $wouldFree = Optimize-VmMemory shared -WhatIf
        $wouldFree.FreedBytes | Should -Be 0
        $preferred = & { $WhatIfPreference = $true; Optimize-VmMemory shared }
        "$($preferred.FreedBytes) $($preferred.FoundBytes -gt 1MB)" | Should -Be '0 True'
        $before = (Get-KvmVm shared).ResidentBytes
        # What is said comes before the preference.
        $freed = & { $WhatIfPreference = $true; Get-KvmVm shared | Optimize-VmMemory -WhatIf:$false }
        Assert-Output Optimize-VmMemory $freed
        $freed.Method | Should -Be 'buddy'
        $freed.FoundBytes | Should -BeGreaterThan 1MB
        $freed.FreedBytes | Should -BeGreaterThan 1MB
        (Get-KvmVm shared).ResidentBytes | Should -BeLessThan $before
    }

    It 'goes on for as long as it is wanted, within its limits' {
        $turns = [Collections.Generic.List[object]]::new()
        do {
            Optimize-VmMemory shared -Continuous -Interval 0.1 -MaxBytesPerSecond 64MiB -MaxProcessorPercent 50 |
                ForEach-Object { $turns.Add($_); if ($turns.Count -eq 3) { break } }
        } while ($false)
        $turns.Count | Should -Be 3
        $turns[2].Method | Should -Be 'buddy'
    }

    It 'shows each turn when it is over, also where the output goes into a pipe' {
        $lines = Read-Redirected source 'Optimize-VmMemory shared -Continuous -Interval 0.1' '^shared +\d.* source$'
        @($lines | Where-Object { $_ }) | Should -HaveCount 3
    }

    It 'says that it is at it, and says so no more when it is done' {
        $started = Start-Cmdlet Optimize-VmMemory @{ VM = 'shared' }
        Wait-Until { "$($started.Shell.InvocationStateInfo.State)" -eq 'Completed' } 'it is done'
        $records = @($started.Shell.Streams.Progress | Where-Object Activity -Like '*memory of shared')
        $records[0].StatusDescription | Should -Match '^source takes back'
        Assert-ProgressEnded $records
        $started.Shell.Dispose()
    }

    It 'refuses a VM whose memory is private, and one that is not there' {
        Assert-Failure ({ Optimize-VmMemory private -ErrorAction Stop } | Should -Throw -PassThru) VmMemoryUnreadable InvalidOperation private
        Assert-Failure ({ Optimize-VmMemory nobody -ErrorAction Stop } | Should -Throw -PassThru) VmNotFound ObjectNotFound nobody
    }

    It 'completes names of VMs' {
        Get-Completion 'Optimize-VmMemory -VM sh' | Should -Be 'shared'
    }

    It 'goes on as a job until Stop-Job' {
        $job = Optimize-VmMemory shared -Continuous -Interval 0.1 -AsJob
        Assert-Output Optimize-VmMemory $job
        Wait-Until { $job.Output.Count -ge 2 } 'it has had two turns'
        Stop-Job $job
        "$($job.Name) $($job.State) $($job.Location)" | Should -Be 'Optimize shared Stopped source'
        @(Receive-Job $job)[0].Method | Should -Be 'buddy'
        Remove-Job $job
    }

    It 'goes on until Ctrl+C' {
        $started = Start-Cmdlet Optimize-VmMemory @{ VM = 'sh*'; Continuous = $true; Interval = 0.1 }
        Wait-Until { $started.Output.Count -ge 3 } 'it has had two turns'
        Stop-Cmdlet $started
    }

    It 'ends at Ctrl+C while a host does not answer' {
        Assert-StopsWhileWaiting tiny Optimize-VmMemory @{ VM = 'shared' }
    }
}
