# What ends before the commitment leaves the VM at the source, unharmed; what was committed goes on. One guest for all: each
# migration but the last is made to fail at a named point, and the oracle judges after each.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, 'LabFixture.ps1'))
}

Describe 'A migration that something happens to' -Tag 'Vm' {
    BeforeAll {
        $setup = New-ConnectedLab source, main, sub1, sub2
        $source, $main, $sub1, $sub2 = 'source', 'main', 'sub1', 'sub2' | ForEach-Object { $setup.Connection[$_] }
        $guest = Start-LabGuest -LabHost $setup.Host.source -Name vm1 -Memory 1GB
        $null = Invoke-LabGuest -Guest $guest -Command 'fill 128'
        $null = Invoke-LabGuest -Guest $guest -Command 'run rate=4 threads=1 pace=64'
        $arguments = @{ MainHost = $main; SubHost = $sub1, $sub2; MainMemory = 128MB }

        function Assert-RunsAtSource {
            (Get-KvmVm -KvmHost $source -Name vm1).State | Should -Be 'running'
            (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
            Invoke-OnHost $setup.Host.source 'ls -l /proc/$(pgrep qemu-system)/fd | grep -c userfaultfd || true' | Should -Be '0'
            foreach ($labHost in $setup.Host.main, $setup.Host.sub1, $setup.Host.sub2) {
                Wait-Until { -not (Get-LeftOver $labHost) } "nothing is left on $($labHost.Name)"
                # Nor sockets of the QEMU that never ran: the next attempt's would have to take other paths.
                Invoke-OnHost $labHost "find $($guest.RunDirectory) -type s 2>/dev/null || true" | Should -BeNullOrEmpty
            }
        }
    }

    AfterEach {
        Clear-FailurePoint $setup.Host.source
        Clear-FailurePoint $setup.Host.main
    }

    AfterAll {
        Remove-ConnectedLab
    }

    It 'fails, with the VM at the source, when the source worker is killed at <Point>' -ForEach @(
        @{ Point = 'source.pre-copy' }
        @{ Point = 'source.scanned' }
        @{ Point = 'source.sending' }
        @{ Point = 'source.round-sent' }
        @{ Point = 'source.harvest' }
        @{ Point = 'source.stopped' }
        @{ Point = 'source.last-round' }
        @{ Point = 'source.ready' }
    ) {
        Set-FailurePoint $setup.Host.source "$Point=kill"
        { Get-KvmVm -KvmHost $source -Name vm1 | Start-SplitMigration @arguments } | Should -Throw -ErrorId 'MigrationFailed*'
        [IO.File]::Exists($setup.Host.source.PathOf("/run/fctrans/$Point.reached")) | Should -BeTrue
        Assert-RunsAtSource
    }

    It 'fails, with the VM at the source, when the main worker is killed at <Point>' -ForEach @(
        @{ Point = 'main.receiving' }
        @{ Point = 'main.table-complete' }
        @{ Point = 'main.loaded' }
    ) {
        Set-FailurePoint $setup.Host.main "$Point=kill"
        { Get-KvmVm -KvmHost $source -Name vm1 | Start-SplitMigration @arguments } | Should -Throw -ErrorId 'MigrationFailed*'
        [IO.File]::Exists($setup.Host.main.PathOf("/run/fctrans/$Point.reached")) | Should -BeTrue
        Assert-RunsAtSource
    }

    # The second while the main host loads the device state, which has it ask for pages that were left.
    It 'fails, with the VM at the source, when the source worker is killed with pages left there: <Point>' -ForEach @(
        @{ Point = 'source.left' }
        @{ Point = 'source.giving' }
    ) {
        Set-FailurePoint $setup.Host.source "$Point=kill"
        { Get-KvmVm -KvmHost $source -Name vm1 | Start-SplitMigration @arguments -Mode PostCopy } | Should -Throw -ErrorId 'MigrationFailed*'
        [IO.File]::Exists($setup.Host.source.PathOf("/run/fctrans/$Point.reached")) | Should -BeTrue
        Assert-RunsAtSource
    }

    It 'fails, with the VM at the source, when the main host''s memory gets full' {
        Set-FailurePoint $setup.Host.main 'main.receiving=park'
        $job = Get-KvmVm -KvmHost $source -Name vm1 | Start-SplitMigration @arguments -AsJob
        Wait-FailurePoint $setup.Host.main 'main.receiving'
        $null = Invoke-OnHost $setup.Host.main 'df --output=size /dev/shm | tail -1 | tr -d '' '' >/run/shm-size && mount -o remount,size=16M /dev/shm'
        try {
            Resume-FailurePoint $setup.Host.main 'main.receiving'
            $null = Wait-Job $job -Timeout 60
            $job.State | Should -Be 'Failed'
            $failures = $null
            Receive-Job $job -ErrorVariable failures -ErrorAction SilentlyContinue
            $failures[0].Exception.Message | Should -BeLike '*could not be written (ENOSPC)*'
            Remove-Job $job
        }
        finally {
            $null = Invoke-OnHost $setup.Host.main 'mount -o remount,size=$(cat /run/shm-size)k /dev/shm'
        }

        Assert-RunsAtSource
    }

    # The kernel of such a host acknowledges everything, so no link breaks.
    It 'fails, with the VM running at the source, when the main worker does nothing any more while the VM stands still' {
        Set-FailurePoint $setup.Host.main 'main.loaded=park'
        $job = Get-KvmVm -KvmHost $source -Name vm1 | Start-SplitMigration @arguments -AsJob
        Wait-FailurePoint $setup.Host.main 'main.loaded'
        # It stands still, and answers when it runs again.
        $null = Get-LabGuestStat -Guest $guest
        Resume-FailurePoint $setup.Host.main 'main.loaded'
        $null = Wait-Job $job -Timeout 60
        $job.State | Should -Be 'Failed'
        $failures = $null
        Receive-Job $job -ErrorVariable failures -ErrorAction SilentlyContinue
        $failures[0].Exception.Message | Should -BeLike '*stood still for 30 s*'
        Remove-Job $job
        Assert-RunsAtSource
    }

    It 'is given up at the end of its -Timeout though the PowerShell that started it is gone' {
        $lab = $setup.Lab
        $script = "Import-Module '$root/out/FCtrans/FCtrans.psd1'; " +
            "`$s, `$m, `$a, `$b = '$($setup.Host.source.Address)', '$($setup.Host.main.Address)', '$($setup.Host.sub1.Address)', '$($setup.Host.sub2.Address)' | " +
            "ForEach-Object { Connect-KvmHost -HostName `$_ -KeyFile '$($lab.KeyPath)' -KnownHostsFile '$($lab.KnownHostsPath)' }; " +
            "Get-KvmVm -KvmHost `$s -Name vm1 | Start-SplitMigration -MainHost `$m -SubHost `$a, `$b -MainMemory 128MB -Mode PreCopy -Timeout 0:0:6 -BandwidthLimitBytesPerSecond 1MB"
        $start = [Diagnostics.ProcessStartInfo]::new([Environment]::ProcessPath)
        foreach ($argument in '-NoProfile', '-NonInteractive', '-Command', $script) { $start.ArgumentList.Add($argument) }
        $start.RedirectStandardOutput = $true
        $powershell = [Diagnostics.Process]::Start($start)
        try {
            Wait-Until { Get-SplitMigration -KvmHost $source | Where-Object State -EQ 'PreCopy' } 'it copies'
        }
        finally {
            $powershell.Kill()
            $powershell.WaitForExit()
        }

        Wait-Until { Get-SplitMigration -KvmHost $source | Where-Object { $_.State -eq 'Failed' -and $_.Error -like '*-Timeout*' } } 'it has failed'
        Assert-RunsAtSource
    }

    It 'is given up by Stop-SplitMigration while it copies' {
        Set-FailurePoint $setup.Host.source 'source.round-sent=park'
        $job = Get-KvmVm -KvmHost $source -Name vm1 | Start-SplitMigration @arguments -AsJob
        Wait-FailurePoint $setup.Host.source 'source.round-sent'
        $copying = @(Get-SplitMigration -KvmHost $source | Where-Object State -EQ 'PreCopy')
        $copying | Should -HaveCount 1
        # Stop-SplitMigration waits for the end, so the parked worker is let go by the host, once it has been told to give up: it, not the one before.
        $null = Invoke-OnHost $setup.Host.source ("setsid sh -c 'until grep -q ""to be given up"" /run/fctrans/$($copying[0].SplitId)/source/worker.log; do :; done; " +
            "touch /run/fctrans/source.round-sent.go' >/dev/null 2>&1 </dev/null & true")
        Get-SplitMigration -KvmHost $source | Where-Object State -EQ 'PreCopy' | Stop-SplitMigration -Confirm:$false
        $null = Wait-Job $job -Timeout 60
        $job.State | Should -Be 'Failed'
        Remove-Job $job -Force
        Assert-RunsAtSource
    }

    It 'goes on when the PowerShell that started it is killed' {
        Set-FailurePoint $setup.Host.source 'source.round-sent=park'
        $lab = $setup.Lab
        $script = "Import-Module '$root/out/FCtrans/FCtrans.psd1'; " +
            "`$s, `$m, `$a, `$b = '$($setup.Host.source.Address)', '$($setup.Host.main.Address)', '$($setup.Host.sub1.Address)', '$($setup.Host.sub2.Address)' | " +
            "ForEach-Object { Connect-KvmHost -HostName `$_ -KeyFile '$($lab.KeyPath)' -KnownHostsFile '$($lab.KnownHostsPath)' }; " +
            "Get-KvmVm -KvmHost `$s -Name vm1 | Start-SplitMigration -MainHost `$m -SubHost `$a, `$b -MainMemory 128MB"
        $start = [Diagnostics.ProcessStartInfo]::new([Environment]::ProcessPath)
        foreach ($argument in '-NoProfile', '-NonInteractive', '-Command', $script) { $start.ArgumentList.Add($argument) }
        $start.RedirectStandardOutput = $true
        $powershell = [Diagnostics.Process]::Start($start)
        try {
            Wait-FailurePoint $setup.Host.source 'source.round-sent'
        }
        finally {
            $powershell.Kill()
            $powershell.WaitForExit()
        }

        Resume-FailurePoint $setup.Host.source 'source.round-sent'
        Wait-Until { (Get-SplitMigration -KvmHost $source | Where-Object State -EQ 'Completed') } 'the migration has completed'
        Move-LabGuestConsole -Guest $guest -LabHost $setup.Host.main
        (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
        (Get-KvmVm -KvmHost $main -Name vm1).State | Should -Be 'running'
    }
}

Describe 'A migration whose worker is killed at the commitment or after it' -Tag 'Vm' {
    BeforeAll {
        $setup = New-ConnectedLab source, main, sub1
    }

    AfterAll {
        Remove-ConnectedLab
    }

    # A guest of its own for each: one that runs split can't be moved on.
    It 'ends with the VM running on the main host: <Worker> at <Point>, <Mode>' -ForEach @(
        @{ Worker = 'source'; Point = 'source.committed'; Mode = 'Hybrid' }
        @{ Worker = 'main'; Point = 'main.committed'; Mode = 'PostCopy' }
        @{ Worker = 'main'; Point = 'main.running'; Mode = 'PreCopy' }
        @{ Worker = 'source'; Point = 'source.post-copy'; Mode = 'PostCopy' }
        @{ Worker = 'main'; Point = 'main.drain.asking'; Mode = 'PostCopy' }
        @{ Worker = 'main'; Point = 'main.drain.fetched'; Mode = 'PostCopy' }
        @{ Worker = 'main'; Point = 'main.drain.releasing'; Mode = 'PostCopy' }
        @{ Worker = 'source'; Point = 'source.giving-up'; Mode = 'PostCopy' }
        @{ Worker = 'main'; Point = 'main.drain.released'; Mode = 'PostCopy' }
        @{ Worker = 'main'; Point = 'main.drain.emptied'; Mode = 'PostCopy' }
        @{ Worker = 'main'; Point = 'main.take.counted'; Mode = 'PostCopy' }
        @{ Worker = 'sub1'; Point = 'sub.taking'; Mode = 'PostCopy' }
    ) {
        $name = $Point -replace '\W', '-'
        $guest = Start-LabGuest -LabHost $setup.Host.source -Name $name -Memory 512MB
        try {
            $null = Invoke-LabGuest -Guest $guest -Command 'fill 128'
            $null = Invoke-LabGuest -Guest $guest -Command 'run rate=4 threads=1 pace=64'
            Set-FailurePoint $setup.Host[$Worker] "$Point=kill"
            $result = Get-KvmVm -KvmHost $setup.Connection.source -Name $name |
                Start-SplitMigration -MainHost $setup.Connection.main -SubHost $setup.Connection.sub1 -MainMemory 128MB -Mode $Mode
            $result.State | Should -Be 'Completed'
            Wait-FailurePoint $setup.Host[$Worker] $Point
            Get-KvmVm -KvmHost $setup.Connection.source | Should -BeNullOrEmpty
            Move-LabGuestConsole -Guest $guest -LabHost $setup.Host.main
            (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
        }
        finally {
            Clear-FailurePoint $setup.Host[$Worker]
            Stop-LabGuest -Guest $guest
        }

        foreach ($labHost in $setup.Host.source, $setup.Host.main, $setup.Host.sub1) {
            Wait-Until { -not (Get-LeftOver $labHost) } "nothing is left on $($labHost.Name)"
        }
    }
}

Describe 'A guest that writes a lot just before it is stopped' -Tag 'Vm' {
    AfterAll {
        Remove-ConnectedLab
    }

    It 'stands still no longer for that: what is too much stays at the source' {
        $setup = New-ConnectedLab source, main, sub1
        $guest = Start-LabGuest -LabHost $setup.Host.source -Name vm1 -Memory 512MB
        $null = Invoke-LabGuest -Guest $guest -Command 'fill 64'
        Set-FailurePoint $setup.Host.source 'source.switch-over=park'
        $job = Get-KvmVm -KvmHost $setup.Connection.source -Name vm1 |
            Start-SplitMigration -MainHost $setup.Connection.main -SubHost $setup.Connection.sub1 -MainMemory 256MB -BandwidthLimitBytesPerSecond 20MB -AsJob
        Wait-FailurePoint $setup.Host.source 'source.switch-over'
        $null = Invoke-LabGuest -Guest $guest -Command 'fill 64'
        Resume-FailurePoint $setup.Host.source 'source.switch-over'
        $null = Wait-Job $job -Timeout 120
        $result = Receive-Job $job
        $result.State | Should -Be 'Completed'
        $result.LeftBytesAtSwitchOver | Should -BeGreaterThan 48MB
        Move-LabGuestConsole -Guest $guest -LabHost $setup.Host.main
        (Invoke-LabGuest -Guest $guest -Command 'verify').errors | Should -Be 0
    }
}

Describe 'A migration that loses its links or a sub-host''s worker at each of its states' -Tag 'Vm' {
    AfterAll {
        Remove-ConnectedLab
    }

    It 'completes all the same: <Mode>, <Security>' -ForEach @(
        @{ Mode = 'PreCopy'; Security = 'None'; Points = 'source.pre-copy', 'source.sending', 'source.round-sent', 'source.stopped', 'source.last-round', 'source.ready', 'source.committed' }
        @{ Mode = 'PostCopy'; Security = 'Tls'; Points = 'source.stopped', 'source.left', 'source.last-round', 'source.ready', 'source.committed', 'source.post-copy', 'source.giving' }
    ) {
        $setup = New-ConnectedLab source, main, sub1
        try {
            $guest = Start-LabGuest -LabHost $setup.Host.source -Name vm1 -Memory 512MB
            $null = Invoke-LabGuest -Guest $guest -Command 'fill 128'
            $null = Invoke-LabGuest -Guest $guest -Command 'run rate=4 threads=1 pace=64'
            $atMain = 'main.table-complete', 'main.loaded', 'main.committed', 'main.running'
            Set-FailurePoint $setup.Host.source (($Points | ForEach-Object { "$_=cut" }) -join ';')
            Set-FailurePoint $setup.Host.main (($atMain | ForEach-Object { "$_=cut" }) -join ';')
            $atSub = $Mode -eq 'PostCopy' ? 'sub.taking' : 'sub.storing'
            Set-FailurePoint $setup.Host.sub1 "$atSub=kill"
            $result = Get-KvmVm -KvmHost $setup.Connection.source -Name vm1 |
                Start-SplitMigration -MainHost $setup.Connection.main -SubHost $setup.Connection.sub1 -MainMemory 128MB -Mode $Mode -DataPlaneSecurity $Security
            $result.State | Should -Be 'Completed'
            $result.Reconnects | Should -BeGreaterThan 3
            foreach ($point in $Points) { [IO.File]::Exists($setup.Host.source.PathOf("/run/fctrans/$point.reached")) | Should -BeTrue -Because $point }
            foreach ($point in $atMain) { [IO.File]::Exists($setup.Host.main.PathOf("/run/fctrans/$point.reached")) | Should -BeTrue -Because $point }
            [IO.File]::Exists($setup.Host.sub1.PathOf("/run/fctrans/$atSub.reached")) | Should -BeTrue -Because $atSub
            Get-KvmVm -KvmHost $setup.Connection.source | Should -BeNullOrEmpty
            Move-LabGuestConsole -Guest $guest -LabHost $setup.Host.main
            (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
        }
        finally {
            Remove-ConnectedLab
        }
    }

    It 'completes when the source''s QEMU and its worker are killed with pages left there' {
        $setup = New-ConnectedLab source, main, sub1
        try {
            $guest = Start-LabGuest -LabHost $setup.Host.source -Name vm1 -Memory 512MB
            $null = Invoke-LabGuest -Guest $guest -Command 'fill 128'
            $null = Invoke-LabGuest -Guest $guest -Command 'run rate=4 threads=1 pace=64'
            $ramPath = $guest.RamPath
            # The main host does not begin to fetch before the source's side has been killed.
            Set-FailurePoint $setup.Host.main 'main.drain.asking=park'
            Set-FailurePoint $setup.Host.source 'source.post-copy=park'
            $job = Get-KvmVm -KvmHost $setup.Connection.source -Name vm1 |
                Start-SplitMigration -MainHost $setup.Connection.main -SubHost $setup.Connection.sub1 -MainMemory 128MB -Mode PostCopy -AsJob
            Wait-FailurePoint $setup.Host.source 'source.post-copy'
            # The VM runs on its new host already: there is a map to draw, with what is still to come, and the time it takes.
            $page = [IO.Path]::GetTempFileName()
            Get-SplitMigration vm1 | Export-SplitMigrationReport -Path $page
            $report = [IO.File]::ReadAllText($page)
            [IO.File]::Delete($page)
            $report | Should -Match 'PostCopy'
            $report | Should -Match 'to be fetched'
            $report | Should -Match 'Remote paging since the switch-over'
            Wait-Until { @($job.Progress) | Where-Object { $_.StatusDescription -match 'still come from the source' -and $_.PercentComplete -ge 0 } } 'what is to come is told'
            Clear-FailurePoint $setup.Host.source
            [void] (Invoke-OnHost $setup.Host.source 'kill -9 $(pgrep qemu-system)')
            $null = Stop-Worker $setup.Host.source source
            Resume-FailurePoint $setup.Host.main 'main.drain.asking'
            $null = Wait-Job $job -Timeout 120
            $result = Receive-Job $job
            $result.State | Should -Be 'Completed'
            [IO.File]::Exists($setup.Host.source.PathOf($ramPath)) | Should -BeFalse
            Move-LabGuestConsole -Guest $guest -LabHost $setup.Host.main
            (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
        }
        finally {
            Remove-ConnectedLab
        }
    }
}
