# Giving a migration up. One that runs is given up in StartSplitMigration.Tests.ps1.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $split = Get-StandingSplit
}

Describe 'Stop-SplitMigration' {
    It 'is too late for one that has ended, by whatever it is named' {
        Assert-Failure ({ Stop-SplitMigration paged -ErrorAction Stop } | Should -Throw -PassThru) MigrationCommitted InvalidOperation paged
        Assert-Failure ({ Stop-SplitMigration -SplitId $split.SplitId -ErrorAction Stop } | Should -Throw -PassThru) MigrationCommitted InvalidOperation $split.SplitId
        foreach ($piped in $split, (Get-KvmVm paged), 'paged', (Get-VmRemotePaging paged)) {
            ({ $piped | Stop-SplitMigration -ErrorAction Stop } | Should -Throw -PassThru).FullyQualifiedErrorId | Should -BeLike 'MigrationCommitted,*'
        }
    }

    It 'passes over what has ended where a name has wildcards, and finds VMs by any case' {
        Stop-SplitMigration pag*, nobod* -ErrorAction Stop | Should -BeNullOrEmpty
        Assert-Failure ({ Stop-SplitMigration PAGED -ErrorAction Stop } | Should -Throw -PassThru) MigrationCommitted InvalidOperation paged
    }

    It 'names what there is not' {
        Assert-Failure ({ Stop-SplitMigration shared -ErrorAction Stop } | Should -Throw -PassThru) MigrationNotFound ObjectNotFound shared
    }

    It 'completes VMs and ids' {
        Get-Completion 'Stop-SplitMigration pag' | Should -Be 'paged'
        Get-Completion 'Stop-SplitMigration -SplitId ' | Should -Be $split.SplitId
    }

    It 'ends at Ctrl+C while a host does not answer' {
        Assert-StopsWhileWaiting sub Stop-SplitMigration @{ VM = 'paged' }
    }
}
