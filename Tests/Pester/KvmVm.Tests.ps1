# VMs as operators see them, and what is refused before anything is changed.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, 'LabFixture.ps1'))
    $lab = New-Lab
    $ours = @{ KeyFile = $lab.KeyPath; KnownHostsFile = $lab.KnownHostsPath }
    $labSource = New-LabHost -Name source -ShmSize 1GB
    $labTiny = New-LabHost -Name tiny -ShmSize 32MB
    $labSub = New-LabHost -Name sub -ShmSize 1GB
    $source = Connect-KvmHost $labSource.Address @ours -Name source
    $tiny = Connect-KvmHost $labTiny.Address @ours -Name tiny
    $sub = Connect-KvmHost $labSub.Address @ours -Name sub
    $shared = Start-LabGuest -LabHost $labSource -Name shared -Memory 256MB
    $private = Start-LabGuest -LabHost $labSource -Name private -Memory 256MB -PrivateMemory

    function Assert-NothingChanged {
        foreach ($labHost in $labSource, $labTiny, $labSub) {
            Get-LeftOver $labHost | Should -BeNullOrEmpty
            Invoke-OnHost $labHost 'ls /run/fctrans 2>/dev/null || true' | Should -BeNullOrEmpty
        }

        (Get-KvmVm shared -KvmHost $source).State | Should -Be 'running'
    }
}

AfterAll {
    Disconnect-KvmHost *
    Remove-Lab
}

Describe 'Get-KvmVm' {
    It 'finds the VMs of all connected hosts' {
        $vms = @(Get-KvmVm)
        $vms.Name -join ' ' | Should -Be 'private shared'
        $vms[0].PSObject.TypeNames[0] | Should -Be 'FCtrans.KvmVm'
        $vms.HostName -join ' ' | Should -Be 'source source'
    }

    It 'takes hosts from the pipeline, names with wildcards, and host names' {
        ($source, $sub | Get-KvmVm -Name s*).Name | Should -Be 'shared'
        (Get-KvmVm -KvmHost source -Name priv*).Name | Should -Be 'private'
        Get-KvmVm -KvmHost sub | Should -BeNullOrEmpty
    }

    It 'describes a VM' {
        $vm = Get-KvmVm shared -KvmHost $source
        $vm.MemoryBytes | Should -Be 256MB
        $vm.State | Should -Be 'running'
        $vm.CanSplit | Should -BeTrue
        $vm.Obstacles | Should -HaveCount 0
        @($vm.RamBlocks)[0].IsShared | Should -BeTrue
        $vm.ResidentBytes | Should -BeLessOrEqual 256MB
    }

    It 'says why a VM can not be split, and what to change' {
        $vm = Get-KvmVm private -KvmHost $source
        $vm.CanSplit | Should -BeFalse
        @($vm.Obstacles).Code | Should -Contain 'PrivateMemory'
        @($vm.Obstacles | Where-Object Code -EQ 'PrivateMemory')[0].Remedy | Should -Match 'share=on'
    }

    It 'names a VM that is not there' {
        $failure = { Get-KvmVm nobody -ErrorAction Stop } | Should -Throw -ErrorId 'VmNotFound,*' -PassThru
        "$($failure.CategoryInfo.Category)" | Should -Be 'ObjectNotFound'
        $failure.TargetObject | Should -Be 'nobody'
    }
}

Describe 'Get-VmUnusedMemory' {
    It 'tells used from unused, by object and by name' {
        foreach ($unused in (Get-KvmVm shared -KvmHost $source | Get-VmUnusedMemory), (Get-VmUnusedMemory shared)) {
            $unused.VM | Should -Be 'shared'
            $unused.MemoryBytes | Should -Be 256MB
            $unused.Method | Should -Be 'buddy'
            $unused.UsedBytes + $unused.UnusedBytes | Should -Be 256MB
        }
    }

    It 'names a VM that is not there' {
        { Get-VmUnusedMemory nobody -ErrorAction Stop } | Should -Throw -ErrorId 'VmNotFound,*'
        { Get-VmUnusedMemory nobody -Continuous -ErrorAction Stop } | Should -Throw -ErrorId 'VmNotFound,*'
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
            foreach ($change in $look.Changes) { if ("$($change.Kind)" -eq 'Used') { $used += $change.Length } }
            if (-not $look.HasMoreChanges) { $used | Should -Be $look.BecameUsedBytes }
            $grown += [double] $look.BecameUsedBytes - $look.BecameUnusedBytes
            $look.UsedBytes + $look.UnusedBytes | Should -Be 256MB
        }

        $grown | Should -Be ([double] $looks[-1].UsedBytes - $looks[0].UsedBytes)
        $looks[-1].Time | Should -BeGreaterThan $looks[0].Time
    }

    It 'looks at several VMs side by side, each with its error' {
        $both = @()
        $failures = @()
        do {
            Get-VmUnusedMemory shared, private -Continuous -Interval 0.1 -ErrorAction SilentlyContinue -ErrorVariable +failures |
                ForEach-Object { $both += $_; if ($both.Count -ge 3 -and $failures) { break } }
        } while ($false)
        @($both.VM | Where-Object { $_ -ne 'shared' }) | Should -HaveCount 0
        $failures[0].FullyQualifiedErrorId | Should -BeLike 'VmMemoryUnreadable,*'
    }
}

Describe 'Get-VmMemoryMap' {
    It 'is all of the memory, once, and agrees with the figures' {
        foreach ($granularity in 4KB, 1MB) {
            $map = @(Get-VmMemoryMap shared -Granularity $granularity)
            $map[0].PSObject.TypeNames[0] | Should -Be 'FCtrans.VmMemoryRange'
            $next = 0; $used = 0; $resident = 0
            foreach ($range in $map) {
                $range.Start | Should -Be $next
                $next += $range.Length; $used += $range.UsedBytes; $resident += $range.ResidentBytes
                if ($granularity -eq 4KB) { [Math]::Max([Math]::Max($range.UsedBytes, $range.FreeBytes), [Math]::Max($range.NeverTouchedBytes, $range.BalloonedBytes)) | Should -Be $range.Length }
            }

            $next | Should -Be 256MB
            [Math]::Abs($used - [double] (Get-VmUnusedMemory shared).UsedBytes) | Should -BeLessThan 8MB
            [Math]::Abs($resident - [double] (Get-KvmVm shared).ResidentBytes) | Should -BeLessThan 8MB
        }

        @($map | Where-Object { "$($_.Kind)" -eq 'NeverTouched' -and $_.Place }) | Should -HaveCount 0
        @($map | Where-Object { "$($_.Kind)" -eq 'Used' })[0].Place | Should -Be 'source'
        $map[0].GuestPhysicalAddress | Should -Be 0
        # The guest's kernel has some page active, of the program that it runs.
        @($map | Where-Object HotBytes).Count | Should -BeGreaterThan 0
    }

    It 'gives each part by itself if wished' {
        $parts = @(Get-KvmVm shared | Get-VmMemoryMap -Granularity 16MB -Unmerged)
        $parts | Should -HaveCount 16
        foreach ($part in $parts) { $part.Length | Should -Be 16MB }
    }

    It 'refuses a granularity that there is not, and a VM that can not be read' {
        { Get-VmMemoryMap shared -Granularity 6000 } | Should -Throw -ErrorId 'GranularityInvalid,*'
        { Get-VmMemoryMap private -ErrorAction Stop } | Should -Throw -ErrorId 'VmMemoryUnreadable,*'
    }
}

Describe 'Show-VmMemoryMap' {
    It 'fits the size wished for, in letters where there are no colours' {
        $lines = @(Show-VmMemoryMap shared -Width 60 -Height 14)
        $lines.Count | Should -BeLessOrEqual 14
        foreach ($line in $lines) { $line.Length | Should -BeLessOrEqual 60 }
        $lines -join "`n" | Should -Not -Match '\x1b'
        $lines[0] | Should -Match '^shared on source: 256 MiB'
        $cells = -join @($lines[1..($lines.Count - 3)] | ForEach-Object { $_.Substring(10) })
        $cells | Should -Match '^[.#*b-]+$'
        $cells | Should -Match '#'
        $lines[-2..-1] -join ' ' | Should -Match 'never touched .*free .*used'
    }

    It 'names a VM that is not there' {
        { Show-VmMemoryMap nobody -ErrorAction Stop } | Should -Throw -ErrorId 'VmNotFound,*'
    }
}

Describe 'Optimize-VmMemory' {
    It 'says what it would give back, then gives it back' {
        $wouldFree = Optimize-VmMemory shared -WhatIf
        $wouldFree.FreedBytes | Should -Be 0
        $before = (Get-KvmVm shared).ResidentBytes
        $freed = Get-KvmVm shared | Optimize-VmMemory
        $freed.Method | Should -Be 'buddy'
        $freed.FoundBytes | Should -BeGreaterThan 1MB
        $freed.FreedBytes | Should -BeGreaterThan 1MB
        (Get-KvmVm shared).ResidentBytes | Should -BeLessThan $before
    }

    It 'goes on for as long as it is wanted, within its limits' {
        $turns = [Collections.Generic.List[object]]::new()
        do {
            Optimize-VmMemory shared -Continuous -Interval 0.1 -MaxRate 64MB -MaxProcessorPercent 50 |
                ForEach-Object { $turns.Add($_); if ($turns.Count -eq 3) { break } }
        } while ($false)
        $turns.Count | Should -Be 3
        $turns[2].Method | Should -Be 'buddy'
    }

    It 'refuses a VM whose memory is private, and one that is not there' {
        { Optimize-VmMemory private -ErrorAction Stop } | Should -Throw -ErrorId 'VmMemoryUnreadable,*'
        { Optimize-VmMemory nobody -ErrorAction Stop } | Should -Throw -ErrorId 'VmNotFound,*'
    }
}

Describe 'Start-SplitMigration refuses, and changes nothing,' {
    AfterEach {
        Assert-NothingChanged
    }

    It 'an unknown VM' {
        { Start-SplitMigration -VM nobody -MainHost sub -SubHost tiny -MainMemory 64MB } | Should -Throw -ErrorId 'VmNotFound,*'
    }

    It 'a VM whose memory is private' {
        { Start-SplitMigration -VM private -MainHost sub -SubHost tiny -MainMemory 64MB } |
            Should -Throw -ErrorId 'VmCannotBeSplit,*' -ExpectedMessage '*share=on*'
    }

    It 'a host that is not connected' {
        { Start-SplitMigration -VM shared -MainHost nowhere -SubHost tiny -MainMemory 64MB } |
            Should -Throw -ErrorId 'HostNotConnected,*' -ExpectedMessage '*Connect-KvmHost*'
    }

    It 'a main host without room' {
        { Start-SplitMigration -VM shared -MainHost tiny -SubHost sub -MainMemory 50% } | Should -Throw -ErrorId 'MainHostTooSmall,*'
    }

    It 'sub-hosts without room' {
        $null = Invoke-OnHost $labTiny 'head -c 31M /dev/zero >/dev/shm/ballast'
        try {
            { Start-SplitMigration -VM shared -MainHost sub -SubHost tiny -MainMemory 16MB } | Should -Throw -ErrorId 'SubHostsTooSmall,*'
        }
        finally {
            $null = Invoke-OnHost $labTiny 'rm -f /dev/shm/ballast'
        }
    }

    It 'the source as main host, and a host named twice' {
        { Start-SplitMigration -VM shared -MainHost source -SubHost sub -MainMemory 64MB } | Should -Throw -ErrorId 'MainHostIsSource,*'
        { Start-SplitMigration -VM shared -MainHost sub -SubHost tiny, tiny -MainMemory 64MB } | Should -Throw -ErrorId 'HostNamedTwice,*'
        { Start-SplitMigration -VM shared -MainHost sub -SubHost sub -MainMemory 64MB } | Should -Throw -ErrorId 'HostNamedTwice,*'
    }

    It 'a main memory of <Text>' -ForEach @(
        @{ Text = 'much' }, @{ Text = '0' }, @{ Text = '-1GB' }, @{ Text = '101%' }, @{ Text = '1MB' }, @{ Text = '1e30' }
    ) {
        { Start-SplitMigration -VM shared -MainHost sub -SubHost tiny -MainMemory $Text } | Should -Throw -ErrorId 'MainMemoryInvalid,*'
    }

    It 'a sub-host that can not be reached any more' {
        Set-LabLink -LabHost $labTiny -Cut
        try {
            { Start-SplitMigration -VM shared -MainHost sub -SubHost tiny -MainMemory 64MB } |
                Should -Throw -ExpectedMessage "*tiny*"
        }
        finally {
            Set-LabLink -LabHost $labTiny -Restore
        }
    }
}

Describe 'Split migrations that there are none of' {
    It 'are no error when all are asked for, and one when one is named' {
        Get-SplitMigration | Should -BeNullOrEmpty
        Get-VmRemotePaging | Should -BeNullOrEmpty
        { Get-SplitMigration shared -ErrorAction Stop } | Should -Throw -ErrorId 'MigrationNotFound,*'
        { Get-VmRemotePaging shared -ErrorAction Stop } | Should -Throw -ErrorId 'MigrationNotFound,*'
        { Stop-SplitMigration shared -ErrorAction Stop } | Should -Throw -ErrorId 'MigrationNotFound,*'
    }
}
