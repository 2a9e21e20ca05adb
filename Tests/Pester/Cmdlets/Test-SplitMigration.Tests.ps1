# What a split migration would do, and whether it could.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $null = Connect-StandingHost source, one, tiny
}

Describe 'Test-SplitMigration' {
    It 'forecasts, by name and from the pipeline' {
        foreach ($test in (Test-SplitMigration shared one tiny 90%), (Get-KvmVm shared | Test-SplitMigration -MainHost one -SubHost tiny -MainMemory 90%)) {
            Assert-Output Test-SplitMigration $test
            "$($test.VM) $($test.SourceHost) $($test.MainHost) $($test.SubHosts)" | Should -Be 'shared source one tiny'
            $test.BytesToMainHost | Should -BeGreaterThan 1MB
            @($test.Checks)[0].PSObject.TypeNames[0] | Should -Be 'FCtrans.SplitMigrationPrecondition'
        }
    }

    It 'takes what a list says of each VM' {
        $lines = [pscustomobject] @{ VM = 'shared'; MainHost = 'one'; SubHost = 'tiny'; MainMemory = '90%' }, [pscustomobject] @{ Name = 'private'; MainHost = 'tiny'; SubHost = 'one'; MainMemory = '16MB' }
        @($lines | Test-SplitMigration | ForEach-Object { "$($_.VM) $($_.MainHost) $($_.SubHosts)" }) -join ', ' | Should -Be 'shared one tiny, private tiny one'
    }

    It 'says what is in the way, and what to do' {
        $test = Test-SplitMigration private one tiny 50%
        $test.CanMigrate | Should -BeFalse
        $failed = @($test.Checks | Where-Object { -not $_.Passed })
        $failed.Count | Should -BeGreaterThan 0
        foreach ($check in $failed) { $check.Remedy | Should -Not -BeNullOrEmpty }
    }

    It 'takes wildcards for VMs, and for sub-hosts without the source and the main host' {
        $tests = @(Test-SplitMigration sh*, priv*, nobod* one * 90%)
        @($tests.VM) -join ' ' | Should -Be 'shared private'
        foreach ($test in $tests) { $test.SubHosts | Should -Be 'tiny' }
        Assert-Failure ({ Test-SplitMigration shared one x* 90% -ErrorAction Stop } | Should -Throw -PassThru) HostNotConnected ObjectNotFound shared
    }

    It 'names a VM and a host that there is not' {
        Assert-Failure ({ Test-SplitMigration nobody one tiny 50% -ErrorAction Stop } | Should -Throw -PassThru) VmNotFound ObjectNotFound nobody
        Assert-Failure ({ Test-SplitMigration shared nowhere tiny 50% -ErrorAction Stop } | Should -Throw -PassThru) HostNotConnected ObjectNotFound shared
        Assert-Failure ({ Test-SplitMigration shared one tiny much -ErrorAction Stop } | Should -Throw -PassThru) MainMemoryInvalid InvalidArgument shared
    }

    It 'completes VMs and hosts' {
        Get-Completion 'Test-SplitMigration sh' | Should -Be 'shared'
        Get-Completion 'Test-SplitMigration shared -MainHost o' | Should -Be 'one'
    }

    It 'ends at Ctrl+C while a host does not answer' {
        Assert-StopsWhileWaiting tiny Test-SplitMigration @{ VM = 'shared'; MainHost = 'one'; SubHost = 'tiny'; MainMemory = '50%' }
    }
}
