# VMs as operators see them.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $null = Connect-StandingHost source, tiny
    $source = Get-KvmHost source
    $shared = $global:FCtransStandingLab.Guest.shared
}

Describe 'Get-KvmVm' {
    It 'finds the VMs of all connected hosts' {
        $vms = @(Get-KvmVm private, shared)
        $vms.Name -join ' ' | Should -Be 'private shared'
        Assert-Output Get-KvmVm $vms
        $vms.HostName -join ' ' | Should -Be 'source source'
    }

    It 'takes hosts from the pipeline, names with wildcards, and host names' {
        ($source, (Get-KvmHost tiny) | Get-KvmVm -Name s*).Name | Should -Be 'shared'
        (Get-KvmVm -KvmHost source -Name priv*).Name | Should -Be 'private'
        Get-KvmVm -KvmHost tiny | Should -BeNullOrEmpty
    }

    It 'takes names, VMs and what names a VM from the pipeline' {
        @('private', 'sh*' | Get-KvmVm).Name -join ' ' | Should -Be 'private shared'
        $vm = Get-KvmVm -VM shared
        $again = $vm | Get-KvmVm
        "$($again.Name) $($again.HostName)" | Should -Be 'shared source'
        [object]::ReferenceEquals($again, $vm) | Should -BeFalse
        ([pscustomobject] @{ VM = 'shared'; SplitId = '' } | Get-KvmVm).Name | Should -Be 'shared'
        ([pscustomobject] @{ KvmHost = 'source'; Name = 'private' } | Get-KvmVm).Name | Should -Be 'private'
        Get-KvmHost tiny | Get-KvmVm | Should -BeNullOrEmpty
        @(Get-KvmHost source | Get-KvmVm).Name | Should -Contain 'private'
        Assert-Failure ({ 'source' | Get-KvmVm -ErrorAction Stop } | Should -Throw -PassThru) VmNotFound ObjectNotFound source
        Assert-Failure ({ $vm | Get-KvmVm -KvmHost tiny -ErrorAction Stop } | Should -Throw -PassThru) VmNotFound ObjectNotFound shared
    }

    It 'finds a VM again that has been moved, by its object and by its migration' {
        $null = Get-StandingSplit
        $before = $global:FCtransStandingLab.BeforeSplit
        "$($before.HostName) $(($before | Get-KvmVm).HostName) $((Get-KvmVm $before).HostName)" | Should -Be 'source main main'
        (Get-SplitMigration paged | Get-KvmVm).HostName | Should -Be 'main'
        (Get-VmRemotePaging paged | Get-KvmVm).HostName | Should -Be 'main'
        $null = Connect-StandingHost source, tiny
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
        Assert-Failure ({ Get-KvmVm nobody -ErrorAction Stop } | Should -Throw -PassThru) VmNotFound ObjectNotFound nobody
    }

    It 'completes names of VMs and hosts' {
        Get-Completion 'Get-KvmVm s' | Should -Be 'shared'
        Get-Completion 'Get-KvmVm -KvmHost t' | Should -Be 'tiny'
    }

    It 'ends at Ctrl+C while a host does not answer' {
        Assert-StopsWhileWaiting tiny Get-KvmVm @{ KvmHost = 'tiny' }
    }

    It 'sets $? and goes on where one of several fails' {
        $failures = $null
        $found = Get-KvmVm -KvmHost nowhere, source -Name shared -ErrorAction SilentlyContinue -ErrorVariable failures
        $? | Should -BeFalse
        $found.Name | Should -Be 'shared'
        Assert-Failure $failures[0] HostNotConnected ObjectNotFound nowhere
    }
}
