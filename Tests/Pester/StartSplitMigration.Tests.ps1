# How a running split migration is watched, left alone and given up. One guest: every migration but the last is given up, slow
# enough that it can't end by itself before.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, 'LabFixture.ps1'))
}

Describe 'Start-SplitMigration' -Tag 'Vm' {
    BeforeAll {
        $setup = New-ConnectedLab source, main, sub
        $source, $main, $sub = 'source', 'main', 'sub' | ForEach-Object { $setup.Connection[$_] }
        $guest = Start-LabGuest -LabHost $setup.Host.source -Name vm1 -Memory 512MB
        $null = Invoke-LabGuest -Guest $guest -Command 'fill 128'
        $null = Invoke-LabGuest -Guest $guest -Command 'run rate=2 threads=1 pace=64'
        $target = @{ VM = 'vm1'; MainHost = $main; SubHost = $sub; MainMemory = '25%' }
        $slow = @{ MaxBytesPerSecond = 1MB }

        function Assert-GivenUp {
            (Get-KvmVm -KvmHost $source -Name vm1).State | Should -Be 'running'
            (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
            foreach ($labHost in $setup.Host.main, $setup.Host.sub) {
                Wait-Until { -not (Get-LeftOver $labHost) } "nothing is left on $($labHost.Name)"
            }
        }

        function Wait-Copying {
            Wait-Until { Get-SplitMigration | Where-Object State -EQ 'PreCopy' } 'it copies'
        }

        # A pipeline of its own in this process, as at a prompt: it can be stopped as by Ctrl+C, and its progress seen.
        function Start-Pipeline([hashtable] $Parameter, [string] $Cmdlet = 'Start-SplitMigration') {
            $shell = [powershell]::Create([Management.Automation.Runspaces.InitialSessionState]::CreateDefault2())
            $null = $shell.AddCommand('Import-Module').AddParameter('Name', [IO.Path]::Combine($root, 'out', 'FCtrans', 'FCtrans.psd1')).Invoke()
            $shell.Commands.Clear()
            $null = $shell.AddCommand($Cmdlet).AddParameters($Parameter)
            $shell
        }
    }

    AfterAll {
        Remove-ConnectedLab
    }

    It 'shows progress, and Ctrl+C gives it up and leaves the VM running' {
        $shell = Start-Pipeline ($target + $slow)
        try {
            $running = $shell.BeginInvoke()
            Wait-Copying
            # In the very first round: what is left grows less, and each host has its own.
            Wait-Until { @($shell.Streams.Progress).StatusDescription -match 'round 1: [^0].* to go, [^0]' } 'progress is shown'
            Wait-Until { @(@($shell.Streams.Progress) | Where-Object PercentComplete -GT 0).Count -gt 0 } 'it comes on'
            Wait-Until { @($shell.Streams.Progress) | Where-Object { $_.ParentActivityId -ge 0 -and $_.StatusDescription -match '^[^0].* sent' } } 'each host has its own'
            # Whoever waits for it sees the same.
            $waiting = Start-Pipeline @{ VM = 'vm1' } Wait-SplitMigration
            try {
                $null = $waiting.BeginInvoke()
                Wait-Until { @($waiting.Streams.Progress).StatusDescription -match 'round 1: [^0].* to go, [^0]' } 'waiting shows progress'
                Wait-Until { @($waiting.Streams.Progress) | Where-Object { $_.PercentComplete -ge 0 -and $_.SecondsRemaining -gt 0 } } 'and how long it takes'
                $waiting.Stop()
            }
            finally { $waiting.Dispose() }

            $shell.Stop()
            $running.IsCompleted | Should -BeTrue
            "$($shell.InvocationStateInfo.State)" | Should -Be 'Stopped'
        }
        finally {
            $shell.Dispose()
        }

        Assert-GivenUp
    }

    It 'gives up after -Timeout' {
        { Start-SplitMigration @target @slow -Mode PreCopy -Timeout 2 } | Should -Throw -ErrorId 'MigrationTimeout,*' -ExpectedMessage '* after 2 s.*-Timeout*'
        Assert-GivenUp
    }

    It 'runs as a job that Stop-Job gives up' {
        $job = Start-SplitMigration @target @slow -AsJob
        $job.Name | Should -Be 'Split vm1'
        Wait-Copying
        "$($job.State)" | Should -Be 'Running'
        (Get-Job -Id $job.Id).InstanceId | Should -Be $job.InstanceId
        Stop-Job $job
        "$($job.State)" | Should -Be 'Stopped'
        Remove-Job $job
        Assert-GivenUp
    }

    It 'is refused for a VM that takes part in one' {
        $job = Start-SplitMigration @target @slow -AsJob
        try {
            Wait-Copying
            { Start-SplitMigration @target } | Should -Throw -ErrorId 'VmCannotBeSplit,*'
            { Stop-SplitMigration -SplitId ('0' * 32) -ErrorAction Stop } | Should -Throw -ErrorId 'MigrationNotFound,*'
            $failure = { Wait-SplitMigration vm1 -Timeout 0.1 -ErrorAction Stop } | Should -Throw -ErrorId 'MigrationNotEnded,*' -ExpectedMessage '*after 0.1 s*goes on*' -PassThru
            "$($failure.CategoryInfo.Category) $($failure.TargetObject)" | Should -Be 'OperationTimeout vm1'
            Stop-SplitMigration v* -WhatIf
            "$($job.State)" | Should -Be 'Running'
            (Stop-SplitMigration v* -PassThru).State | Should -Be 'Aborted'
            $null = Wait-Job $job -Timeout 60
            "$($job.State)" | Should -Be 'Failed'
            $failures = $null
            Receive-Job $job -ErrorVariable failures -ErrorAction SilentlyContinue
            $failures[0].FullyQualifiedErrorId | Should -BeLike 'MigrationAborted*'
        }
        finally {
            Remove-Job $job -Force
        }

        Assert-GivenUp
    }

    It 'is still to be seen when it was given up and nobody has looked after it, and can not be given up twice' {
        $lab = $setup.Lab
        $script = "Import-Module '$root/out/FCtrans/FCtrans.psd1'; " +
            "`$s, `$m, `$a = '$($setup.Host.source.Address)', '$($setup.Host.main.Address)', '$($setup.Host.sub.Address)' | " +
            "ForEach-Object { Connect-KvmHost -HostName `$_ -KeyFile '$($lab.KeyPath)' -KnownHostsFile '$($lab.KnownHostsPath)' }; " +
            'Start-SplitMigration vm1 -MainHost $m -SubHost $a -MainMemory 25% -MaxBytesPerSecond 1MB'
        $start = [Diagnostics.ProcessStartInfo]::new([Environment]::ProcessPath)
        foreach ($argument in '-NoProfile', '-NonInteractive', '-Command', $script) { $start.ArgumentList.Add($argument) }
        $start.RedirectStandardOutput = $true
        $powershell = [Diagnostics.Process]::Start($start)
        try {
            Wait-Copying
        }
        finally {
            $powershell.Kill()
            $powershell.WaitForExit()
        }

        $stopped = Get-SplitMigration | Where-Object State -EQ 'PreCopy' | Stop-SplitMigration -PassThru
        $stopped.State | Should -Be 'Aborted'
        $failure = { Stop-SplitMigration -SplitId $stopped.SplitId -ErrorAction Stop } | Should -Throw -PassThru
        "$($failure.FullyQualifiedErrorId -replace ',.*') $($failure.CategoryInfo.Category) $($failure.TargetObject)" |
            Should -Be "MigrationEnded InvalidOperation $($stopped.SplitId)"
        Assert-GivenUp
    }

    It 'is forecast by Test-SplitMigration, with every precondition, and nothing is changed' {
        $test = Test-SplitMigration @target
        $test.CanMigrate | Should -BeTrue
        $test.UnusedMethod | Should -Be 'buddy'
        $test.UsedBytes | Should -BeGreaterThan 128MB
        $test.BytesToMainHost + $test.BytesToSubHosts[0] | Should -BeGreaterThan 128MB
        ($test.Checks | Where-Object HostName -EQ $sub.Name).Passed | Should -Not -Contain $false
        $limited = @{ VM = 'vm1'; MainHost = $main; SubHost = @{ KvmHost = $sub; Memory = 1MB }; MainMemory = '25%' }
        $test = Test-SplitMigration @limited
        $test.CanMigrate | Should -BeFalse
        @($test.Checks | Where-Object { -not $_.Passed })[0].Remedy | Should -Not -BeNullOrEmpty
        Get-LeftOver $setup.Host.main | Should -BeNullOrEmpty
    }

    It 'starts the main host''s QEMU with -QemuCommandLine, and leaves the VM running when that QEMU does not start' {
        $line = (Get-KvmVm vm1 -KvmHost $source).CommandLine
        { Start-SplitMigration @target -QemuCommandLine ($line + '-no-such-option') } | Should -Throw -ErrorId 'MigrationNotStarted,*' -ExpectedMessage '*no-such-option*'
        Assert-GivenUp
        # Another guest's: its memory would not fit.
        { Start-SplitMigration @target -QemuCommandLine ($line -replace '512M$', '256M') } | Should -Throw -ErrorId 'MigrationNotStarted,*' -ExpectedMessage '*RAM blocks*'
        Assert-GivenUp
        $script:edited = $line + '-msg', 'timestamp=on'
    }

    It 'switches over after -Timeout all the same when it is hybrid; gives the result through the job of the help''s example, and can not be stopped afterwards' {
        $example = @((Get-Help Start-SplitMigration -Full).Examples.Example.Code | Where-Object { $_ -like '*Wait-Job*' })
        $example | Should -HaveCount 1
        $begin, $end = $example[0].Replace('bigvm kvm2 kvm3, kvm4 32GB', 'vm1 $main $sub 25%') -split '\r?\n', 2
        $begin | Should -BeLike '*vm1*-AsJob'
        # Slow enough to leave most of it at the source after 2 s; the rest comes at the same rate, and it is waited for.
        $PSDefaultParameterValues = @{ 'Start-SplitMigration:MaxBytesPerSecond' = 8MB; 'Start-SplitMigration:Timeout' = '2s'; 'Start-SplitMigration:QemuCommandLine' = $edited }
        . ([scriptblock]::Create($begin))
        Wait-Copying
        $waited = Wait-SplitMigration v* -Timeout 2m
        $waited.State | Should -Be 'Completed'
        $waited.Mode | Should -Be 'Hybrid'
        $waited.LeftBytesAtSwitchOver | Should -BeGreaterThan 64MB
        $waited.DataPlaneSecurity | Should -Be 'Tls'
        $null = Wait-Job $job -Timeout 120
        # No line is left on a console, those of the hosts neither.
        $ended = @($job.Progress | Where-Object { "$($_.RecordType)" -eq 'Completed' })
        @($ended.ActivityId) -join ' ' | Should -Be '4201 4202 4200'
        $result = . ([scriptblock]::Create($end))
        Remove-Job $job
        $result.PSObject.TypeNames[0] | Should -Be 'FCtrans.SplitMigration'
        $result.State | Should -Be 'Completed'
        "$($result.VM) $($result.SourceHost) $($result.MainHost) $($result.SubHosts)" |
            Should -Be "vm1 $($source.Name) $($main.Name) $($sub.Name)"
        Invoke-OnHost $setup.Host.main 'tr ''\0'' '' '' </proc/$(pgrep qemu-system)/cmdline' | Should -BeLike '*-msg timestamp=on*'
        $result.MainMemoryBytes | Should -Be 128MB
        (Get-SplitMigration -SplitId $result.SplitId).State | Should -Be 'Completed'
        { Stop-SplitMigration -SplitId $result.SplitId -ErrorAction Stop } | Should -Throw -ErrorId 'MigrationCommitted,*'
        ($result | Get-VmRemotePaging).SplitId | Should -Be $result.SplitId
        Move-LabGuestConsole -Guest $guest -LabHost $setup.Host.main
        (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
    }
}
