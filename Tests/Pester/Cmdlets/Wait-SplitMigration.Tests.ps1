# Waiting for the end of a migration. One that runs is waited for in StartSplitMigration.Tests.ps1.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $split = Get-StandingSplit
}

Describe 'Wait-SplitMigration' {
    It 'gives at once how one has ended, by whatever it is named' {
        foreach ($ended in (Wait-SplitMigration paged), (Wait-SplitMigration -SplitId $split.SplitId), ($split | Wait-SplitMigration), (Wait-SplitMigration pag*, nobod*), (Get-KvmVm paged | Wait-SplitMigration), ('paged' | Wait-SplitMigration), (Get-VmRemotePaging paged | Wait-SplitMigration), ([pscustomobject] @{ VM = 'x'; SplitId = $split.SplitId } | Wait-SplitMigration), ([pscustomobject] @{ VM = 'paged'; SplitId = '' } | Wait-SplitMigration), (Get-KvmHost main | Wait-SplitMigration)) {
            Assert-Output Wait-SplitMigration $ended
            "$($ended.SplitId) $($ended.State)" | Should -Be "$($split.SplitId) Completed"
        }
    }

    It 'names what there is not' {
        Assert-Failure ({ Wait-SplitMigration -SplitId '' -ErrorAction Stop } | Should -Throw -PassThru) MigrationNotFound ObjectNotFound ''
        Assert-Failure ({ Get-KvmVm private -KvmHost source | Wait-SplitMigration -ErrorAction Stop } | Should -Throw -PassThru) MigrationNotFound ObjectNotFound private
        Assert-Failure ({ Wait-SplitMigration shared -ErrorAction Stop } | Should -Throw -PassThru) MigrationNotFound ObjectNotFound shared
    }

    It 'refuses a time that nobody can mean' {
        Assert-Failure ({ Wait-SplitMigration paged -Timeout ([timespan] 60) } | Should -Throw -PassThru) DurationInvalid InvalidArgument '00:00:00.0000060'
    }

    It 'completes VMs and ids' {
        Get-Completion 'Wait-SplitMigration pag' | Should -Be 'paged'
        Get-Completion 'Wait-SplitMigration -SplitId ' | Should -Be $split.SplitId
    }

    It 'ends at Ctrl+C while a host does not answer' {
        Assert-StopsWhileWaiting sub Wait-SplitMigration @{ VM = 'paged' }
    }
}
