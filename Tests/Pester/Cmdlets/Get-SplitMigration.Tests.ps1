# Split migrations that hosts know of, running or ended.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $split = Get-StandingSplit
}

Describe 'Get-SplitMigration' {
    It 'finds one by VM, by wildcard, by id and by host' {
        $found = Get-SplitMigration paged
        Assert-Output Get-SplitMigration $found
        Assert-Output Get-SplitMigration $split
        "$($found.VM) $($found.State) $($found.SourceHost) $($found.MainHost) $($found.SubHosts[0..1])" | Should -Be 'paged Completed source main sub sub2'
        foreach ($same in (Get-SplitMigration pag*), (Get-SplitMigration -SplitId $split.SplitId), (Get-SplitMigration -KvmHost source, m*)) { $same.SplitId | Should -Be $split.SplitId }
        Get-SplitMigration x* | Should -BeNullOrEmpty
    }

    It 'takes names, VMs and migrations from the pipeline' {
        foreach ($same in ('paged' | Get-SplitMigration), (Get-KvmVm paged | Get-SplitMigration), ($split | Get-SplitMigration)) { $same.SplitId | Should -Be $split.SplitId }
    }

    It 'takes hosts from the pipeline: what they take part in' {
        foreach ($name in 'source', 'main', 'sub2') { (Get-KvmHost $name | Get-SplitMigration).SplitId | Should -Be $split.SplitId }
        $null = Connect-StandingHost tiny, source, main, sub, sub2
        Get-KvmHost tiny | Get-SplitMigration | Should -BeNullOrEmpty
        $null = Get-StandingSplit
    }

    It 'names what there is not' {
        Assert-Failure ({ Get-SplitMigration shared -ErrorAction Stop } | Should -Throw -PassThru) MigrationNotFound ObjectNotFound shared
        Assert-Failure ({ Get-SplitMigration -SplitId ('0' * 32) -ErrorAction Stop } | Should -Throw -PassThru) MigrationNotFound ObjectNotFound ('0' * 32)
    }

    It 'completes VMs, ids and hosts' {
        Get-Completion 'Get-SplitMigration p' | Should -Be @('paged', 'private')
        Get-Completion 'Get-SplitMigration -SplitId ' | Should -Be $split.SplitId
        Get-Completion 'Get-SplitMigration -KvmHost so' | Should -Be 'source'
    }

    It 'tells rounds and traffic as objects that can be shown' {
        foreach ($part in @($split.Rounds) + @($split.Traffic)) { [string] $part.PSObject.TypeNames[0] | Should -Match '^FCtrans\.SplitMigration(Round|Traffic)$' }
        @($split.Rounds).Count | Should -BeGreaterThan 0
        @($split.Traffic).HostName -join ' ' | Should -Be 'main sub sub2'
    }

    It 'ends at Ctrl+C while a host does not answer' {
        Assert-StopsWhileWaiting sub Get-SplitMigration @{ KvmHost = 'sub' }
    }
}
