# What is refused before anything is changed. How a migration runs, is watched and given up: StartSplitMigration.Tests.ps1 and SplitMigration.Tests.ps1.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $null = Connect-StandingHost source, one, tiny

    function Get-State { foreach ($name in 'source', 'one', 'tiny') { Get-LeftOver $labHost[$name]; Invoke-OnHost $labHost[$name] 'ls /run/fctrans 2>/dev/null || true' } }
    $before = (Get-State) -join ' '

    function Assert-NothingChanged {
        (Get-State) -join ' ' | Should -Be $before
        (Get-KvmVm shared -KvmHost source).State | Should -Be 'running'
    }
}

Describe 'Start-SplitMigration refuses, and changes nothing,' {
    AfterEach {
        Assert-NothingChanged
    }

    It 'an unknown VM' {
        Assert-Failure ({ Start-SplitMigration -VM nobody -MainHost one -SubHost tiny -MainMemory 64MB } | Should -Throw -PassThru) VmNotFound ObjectNotFound nobody
    }

    It 'a VM whose memory is private' {
        $failure = { Start-SplitMigration -VM private -MainHost one -SubHost tiny -MainMemory 64MB } | Should -Throw -ExpectedMessage '*share=on*' -PassThru
        Assert-Failure $failure VmCannotBeSplit InvalidOperation private
    }

    It 'a host that is not connected' {
        $failure = { Start-SplitMigration -VM shared -MainHost nowhere -SubHost tiny -MainMemory 64MB } | Should -Throw -ExpectedMessage '*Connect-KvmHost*' -PassThru
        Assert-Failure $failure HostNotConnected ObjectNotFound shared
    }

    It 'a main host without room' {
        Assert-Failure ({ Start-SplitMigration -VM shared -MainHost tiny -SubHost one -MainMemory 50% } | Should -Throw -PassThru) MainHostTooSmall ResourceUnavailable shared
    }

    It 'sub-hosts without room' {
        $null = Invoke-OnHost $labHost.tiny 'head -c 31M /dev/zero >/dev/shm/ballast'
        try {
            Assert-Failure ({ Start-SplitMigration -VM shared -MainHost one -SubHost tiny -MainMemory 16MB } | Should -Throw -PassThru) SubHostsTooSmall ResourceUnavailable shared
        }
        finally {
            $null = Invoke-OnHost $labHost.tiny 'rm -f /dev/shm/ballast'
        }
    }

    It 'the source as main host, and a host named twice' {
        Assert-Failure ({ Start-SplitMigration -VM shared -MainHost source -SubHost one -MainMemory 64MB } | Should -Throw -PassThru) MainHostIsSource InvalidArgument shared
        foreach ($twice in @('tiny', 'tiny'), @('one')) {
            Assert-Failure ({ Start-SplitMigration -VM shared -MainHost one -SubHost $twice -MainMemory 64MB } | Should -Throw -PassThru) HostNamedTwice InvalidArgument shared
        }
    }

    It 'two copies on one sub-host, and durations that are none' {
        $where = @{ VM = 'shared'; MainHost = 'one'; SubHost = 'tiny'; MainMemory = '90%' }
        Assert-Failure ({ Start-SplitMigration @where -Copies 2 } | Should -Throw -PassThru) CopiesImpossible InvalidArgument shared
        Assert-Failure ({ Start-SplitMigration @where -Timeout '00:00:00' } | Should -Throw -PassThru) DurationInvalid InvalidArgument '00:00:00'
        Assert-Failure ({ Start-SplitMigration @where -MaxDowntime '-00:00:01' } | Should -Throw -PassThru) DurationInvalid InvalidArgument '-00:00:01'
        # Ticks, where a span was meant: PowerShell makes them of a number by itself.
        $failure = { Start-SplitMigration @where -MaxDowntime ([timespan] 100) } | Should -Throw -ExpectedMessage '*''100ms''*' -PassThru
        Assert-Failure $failure DurationInvalid InvalidArgument '00:00:00.0000100'
        Assert-Failure ({ Start-SplitMigration @where -Timeout 0.0001 } | Should -Throw -PassThru) DurationInvalid InvalidArgument '00:00:00.0001000'
    }

    It 'a VM that two connections show, and more sub-hosts than can be' {
        $null = Connect-KvmHost $labHost.source.Address @ours -Name again
        try { $failure = { Start-SplitMigration shared -MainHost one -SubHost tiny -MainMemory 64MB } | Should -Throw -PassThru }
        finally { Disconnect-KvmHost again }
        Assert-Failure $failure VmAmbiguous InvalidArgument shared
        Assert-Failure ({ Start-SplitMigration shared -MainHost one -SubHost (@('tiny') * 300) -MainMemory 64MB } | Should -Throw -PassThru) TooManySubHosts InvalidArgument shared
    }

    It 'a main memory of <Text>' -ForEach @(
        @{ Text = 'much' }, @{ Text = '0' }, @{ Text = '-1GB' }, @{ Text = '101%' }, @{ Text = '1MB' }, @{ Text = '1e30' }
    ) {
        Assert-Failure ({ Start-SplitMigration -VM shared -MainHost one -SubHost tiny -MainMemory $Text } | Should -Throw -PassThru) MainMemoryInvalid InvalidArgument shared
    }

    It 'when it is stopped while a host does not answer' {
        Assert-StopsWhileWaiting tiny Start-SplitMigration @{ VM = 'shared'; MainHost = 'one'; SubHost = 'tiny'; MainMemory = '25%' }
    }
}

Describe 'Start-SplitMigration' {
    It 'only says what it would do with -WhatIf, by VM, name, and from the pipeline' {
        # tiny has no room for more.
        $where = @{ MainHost = 'one'; SubHost = @{ KvmHost = 'tiny'; Memory = 16MB }; MainMemory = '95%'; WhatIf = $true }
        Start-SplitMigration shared @where | Should -BeNullOrEmpty
        Start-SplitMigration shared @where -MaxDowntime 0.1 -Timeout 10m -MaxBytesPerSecond 100MiB | Should -BeNullOrEmpty
        Get-KvmVm shared | Start-SplitMigration @where | Should -BeNullOrEmpty
        Assert-NothingChanged
    }

    It 'takes what a list says of each VM' {
        $line = [pscustomobject] @{ VM = 'shared'; MainHost = 'one'; SubHost = 'tin*'; MainMemory = '95%' }
        $line | Start-SplitMigration -WhatIf | Should -BeNullOrEmpty
        $line.MainHost = 'nowhere'
        Assert-Failure ({ $line | Start-SplitMigration } | Should -Throw -PassThru) HostNotConnected ObjectNotFound shared
        $line.MainHost = 'one'; $line.MainMemory = 'much'
        Assert-Failure ({ $line | Start-SplitMigration } | Should -Throw -PassThru) MainMemoryInvalid InvalidArgument shared
        Assert-NothingChanged
    }

    It 'takes wildcards: each VM has its turn, and none is no error' {
        $where = @{ MainHost = 'one'; SubHost = 'tin*'; MainMemory = '95%' }
        Start-SplitMigration nobod*, sh* @where -WhatIf | Should -BeNullOrEmpty
        Start-SplitMigration nobod* @where | Should -BeNullOrEmpty
        Assert-Failure ({ Start-SplitMigration nobod*, p* @where } | Should -Throw -PassThru) VmCannotBeSplit InvalidOperation private
        Assert-Failure ({ Start-SplitMigration nobody, s* @where } | Should -Throw -PassThru) VmNotFound ObjectNotFound nobody
        Assert-NothingChanged
    }

    It 'completes VMs, hosts and modes' {
        Get-Completion 'Start-SplitMigration sh' | Should -Be 'shared'
        Get-Completion 'Start-SplitMigration shared -MainHost o' | Should -Be 'one'
        Get-Completion 'Start-SplitMigration shared -SubHost t' | Should -Be 'tiny'
        Get-Completion 'Start-SplitMigration -Mode P' | Should -Be @('PostCopy', 'PreCopy')
    }

    It 'gives the migration as it ended' {
        $done = Get-StandingSplit
        Assert-Output Start-SplitMigration $done
        "$($done.VM) $($done.State) $($done.SourceHost) $($done.MainHost)" | Should -Be 'paged Completed source main'
        $null = Connect-StandingHost source, one, tiny
    }
}

Describe 'Start-SplitMigration, when a sub-host is cut off,' {
    AfterAll {
        # Its connection is broken; whoever wants the host connects anew.
        Disconnect-KvmHost tiny
    }

    It 'names the host, and changes nothing' {
        Set-LabLink -LabHost $labHost.tiny -Cut
        try {
            { Start-SplitMigration -VM shared -MainHost one -SubHost tiny -MainMemory 64MB } | Should -Throw -ExpectedMessage "*tiny*"
        }
        finally {
            Set-LabLink -LabHost $labHost.tiny -Restore
        }

        Assert-NothingChanged
    }
}
