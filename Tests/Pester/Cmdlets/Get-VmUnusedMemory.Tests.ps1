# What a guest does not use, seen from outside.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $null = Connect-StandingHost source, tiny
    $source = Get-KvmHost source
    $shared = $global:FCtransStandingLab.Guest.shared
}

Describe 'Get-VmUnusedMemory' {
    It 'tells used from unused, by object and by name' {
        foreach ($unused in (Get-KvmVm shared -KvmHost $source | Get-VmUnusedMemory), (Get-VmUnusedMemory shared)) {
            Assert-Output Get-VmUnusedMemory $unused
            $unused.VM | Should -Be 'shared'
            $unused.MemoryBytes | Should -Be 256MB
            $unused.Method | Should -Be 'buddy'
            $unused.UsedBytes + $unused.UnusedBytes | Should -Be 256MB
        }
    }

    It 'names a VM that is not there' {
        Assert-Failure ({ Get-VmUnusedMemory nobody -ErrorAction Stop } | Should -Throw -PassThru) VmNotFound ObjectNotFound nobody
        Assert-Failure ({ Get-VmUnusedMemory nobody -Continuous -ErrorAction Stop } | Should -Throw -PassThru) VmNotFound ObjectNotFound nobody
    }

    It 'goes on looking, and tells what the guest has taken and freed' {
        $looks = [Collections.Generic.List[object]]::new()
        do {
            Get-VmUnusedMemory shared -Continuous -Interval 0.1 -IncludeChanges | ForEach-Object {
                $looks.Add($_)
                if ($looks.Count -eq 1) { $null = Invoke-LabGuest -Guest $shared -Command 'fill 16' }
                # How many looks it takes until all is there depends on how fast the guest is.
                if ([double] $_.UsedBytes - $looks[0].UsedBytes -ge 12MB) { break }
                if ($looks.Count -gt 600) { throw 'What the guest took was not seen.' }
            }
        } while ($false)
        $looks[0].BecameUsedBytes | Should -Be 0
        $looks[0].Changes | Should -HaveCount 0
        $grown = 0
        foreach ($look in $looks) {
            $used = 0
            foreach ($change in $look.Changes) { if ("$($change.Kind)" -eq 'Used') { $used += $change.LengthBytes } }
            if (-not $look.HasMoreChanges) { $used | Should -Be $look.BecameUsedBytes }
            $grown += [double] $look.BecameUsedBytes - $look.BecameUnusedBytes
            $look.UsedBytes + $look.UnusedBytes | Should -Be 256MB
        }

        $grown | Should -Be ([double] $looks[-1].UsedBytes - $looks[0].UsedBytes)
        $looks[-1].Time | Should -BeGreaterThan $looks[0].Time
    }

    It 'shows each look when it was taken, also where the output goes into a pipe' {
        $lines = Read-Redirected source 'Get-VmUnusedMemory shared -Continuous -Interval 0.1' '^shared +256 MiB '
        @($lines | Where-Object { $_ }) | Should -HaveCount 3
        @($lines | Where-Object { $_ })[0] | Should -Match '^VM +Memory +Used +Unused +Never touched +Free +Ballooned +Scan +Found by'
    }

    It 'takes hosts from the pipeline: all VMs there' {
        $failures = $null
        ($source | Get-VmUnusedMemory -ErrorAction SilentlyContinue -ErrorVariable failures).VM | Should -Contain 'shared'
        Assert-Failure $failures[0] VmMemoryUnreadable InvalidOperation private
        Get-KvmHost tiny | Get-VmUnusedMemory | Should -BeNullOrEmpty
    }

    It 'looks at several VMs side by side, each with its error' {
        $both = @()
        $failures = @()
        do {
            Get-VmUnusedMemory shared, private -Continuous -Interval 0.1 -ErrorAction SilentlyContinue -ErrorVariable +failures |
                ForEach-Object { $both += $_; if ($both.Count -ge 3 -and $failures) { break } }
        } while ($false)
        @($both.VM | Where-Object { $_ -ne 'shared' }) | Should -HaveCount 0
        Assert-Failure $failures[0] VmMemoryUnreadable InvalidOperation private
    }

    It 'takes wildcards, and names as VMs have them or otherwise written' {
        (Get-VmUnusedMemory sha*).VM | Should -Be 'shared'
        ('SHARED' | Get-VmUnusedMemory).VM | Should -Be 'shared'
        Get-VmUnusedMemory nobod* | Should -BeNullOrEmpty
    }

    It 'completes names of VMs' {
        Get-Completion 'Get-VmUnusedMemory -VM sh' | Should -Be 'shared'
    }

    It 'goes on until Ctrl+C' {
        $started = Start-Cmdlet Get-VmUnusedMemory @{ VM = 'shared'; Continuous = $true; Interval = 0.1 }
        Wait-Until { $started.Output.Count -ge 3 } 'it has looked twice'
        Stop-Cmdlet $started
    }

    It 'ends at Ctrl+C while a host does not answer' {
        Assert-StopsWhileWaiting tiny Get-VmUnusedMemory @{ VM = 'shared' }
    }
}
