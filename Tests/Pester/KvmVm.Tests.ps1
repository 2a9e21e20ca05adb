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
