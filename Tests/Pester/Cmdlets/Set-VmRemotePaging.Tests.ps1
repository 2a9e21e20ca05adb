# Changing the remote paging of VMs while they run. That the limit is held: SplitMigration.Tests.ps1.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $split = Get-StandingSplit
}

Describe 'Set-VmRemotePaging' {
    It 'says nothing, and with -PassThru what is then' {
        Set-VmRemotePaging paged -Prefetch $false | Should -BeNullOrEmpty
        $set = Set-VmRemotePaging paged -Prefetch $true -EvictionPolicy OldestFirst -PassThru
        Assert-Output Set-VmRemotePaging $set
        "$($set.Prefetch) $($set.EvictionPolicy)" | Should -Be 'True OldestFirst'
        (Get-VmRemotePaging paged | Set-VmRemotePaging -EvictionPolicy Refault -PassThru).EvictionPolicy | Should -Be 'Refault'
    }

    It 'takes sizes, shares of the memory, and wildcards' {
        (Set-VmRemotePaging pag* -MainMemory 80MB -PassThru).LimitBytes | Should -Be 80MB
        ('paged' | Set-VmRemotePaging -MainMemory 25% -PassThru).LimitBytes | Should -Be 64MB
        Set-VmRemotePaging nobod* -MainMemory 80MB -PassThru | Should -BeNullOrEmpty
    }

    It 'changes nothing with -WhatIf' {
        Set-VmRemotePaging paged -Prefetch $false -MainMemory 80MB -WhatIf
        $paging = Get-VmRemotePaging paged
        "$($paging.Prefetch) $($paging.LimitBytes)" | Should -Be "True $(64MB)"
    }

    It 'names what can not be' {
        Assert-Failure ({ Set-VmRemotePaging nobody -Prefetch $true -ErrorAction Stop } | Should -Throw -PassThru) MigrationNotFound ObjectNotFound nobody
        Assert-Failure ({ Set-VmRemotePaging paged -MainMemory much -ErrorAction Stop } | Should -Throw -PassThru) MainMemoryInvalid InvalidArgument paged
        Assert-Failure ({ Set-VmRemotePaging paged -MainMemory 100KB -ErrorAction Stop } | Should -Throw -PassThru) PagingNotChanged InvalidOperation paged
    }

    It 'wants to be told what is to be changed' {
        $failure = { Set-VmRemotePaging paged } | Should -Throw -ExpectedMessage '*-MainMemory*' -PassThru
        Assert-Failure $failure SettingMissing InvalidArgument ''
    }

    It 'completes VMs and policies' {
        Get-Completion 'Set-VmRemotePaging pag' | Should -Be 'paged'
        Get-Completion 'Set-VmRemotePaging paged -EvictionPolicy O' | Should -Be 'OldestFirst'
    }

    It 'ends at Ctrl+C while the host does not answer' {
        Assert-StopsWhileWaiting main Set-VmRemotePaging @{ VM = 'paged'; Prefetch = $true }
    }
}
