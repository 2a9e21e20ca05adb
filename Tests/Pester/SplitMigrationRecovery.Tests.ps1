# What a worker does that can't go on as it would: a VM that is not run at the first try, disks that both hosts have, sub-hosts that never
# come back, and a last word that was not heard.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, 'LabFixture.ps1'))

    function Start-Oracle($LabHost, [string] $Name, [string[]] $QemuArguments = @()) {
        $guest = Start-LabGuest -LabHost $LabHost -Name $Name -Memory 512MB -QemuArguments $QemuArguments
        $null = Invoke-LabGuest -Guest $guest -Command 'fill 128'
        $null = Invoke-LabGuest -Guest $guest -Command 'run rate=4 threads=1 pace=64'
        $guest
    }

    <# The VM runs at its source, with all its memory right, and no other host of the lab has anything of it. #>
    function Assert-RunsAtSource($Guest) {
        (Get-KvmVm -KvmHost $setup.Connection.source -Name $Guest.Name).State | Should -Be 'running'
        (Get-LabGuestStat -Guest $Guest -FullPass).errors | Should -Be 0
        foreach ($name in $setup.Host.Keys | Where-Object { $_ -ne 'source' }) {
            Wait-Until { -not (Get-LeftOver $setup.Host[$name]) } "nothing is left on $name"
        }
    }
}

Describe 'Recovery: a VM with a disk that both hosts have' -Tag 'Vm' {
    BeforeAll {
        $setup = New-ConnectedLab source, main, sub1
        # Hosts share all but /run, /tmp and /dev/shm.
        $disk = [IO.Path]::Combine($root, 'artifacts', "lab-disk-$PID.raw")
        $file = [IO.File]::Create($disk)
        $file.SetLength(16MB)
        $file.Dispose()
        # QEMU locks it while the VM runs: two that write to it at once would ruin it.
        $guest = Start-Oracle $setup.Host.source disk1 @('-drive', "file=$disk,format=raw,if=none,id=d0", '-device', 'virtio-blk-pci,drive=d0')
        $arguments = @{ MainHost = $setup.Connection.main; SubHost = $setup.Connection.sub1; MainMemory = 128MB }
    }

    AfterAll {
        Remove-ConnectedLab
        [IO.File]::Delete($disk)
    }

    It 'runs on at the source when the <Worker> worker meets <Action> at <Point>' -ForEach @(
        @{ Worker = 'source'; Point = 'source.ready'; Action = 'kill' }
        @{ Worker = 'source'; Point = 'source.ready'; Action = 'fail' }
        @{ Worker = 'main'; Point = 'main.loaded'; Action = 'kill' }
        @{ Worker = 'main'; Point = 'main.loaded'; Action = 'fail' }
        @{ Worker = 'source'; Point = 'source.stopped'; Action = 'kill' }
    ) {
        Set-FailurePoint $setup.Host[$Worker] "$Point=$Action"
        try { { Get-KvmVm -KvmHost $setup.Connection.source -Name disk1 | Start-SplitMigration @arguments } | Should -Throw -ErrorId 'MigrationFailed*' }
        finally { Clear-FailurePoint $setup.Host[$Worker] }
        Assert-RunsAtSource $guest
        Invoke-OnHost $setup.Host.source 'find /run/fctrans -name state.sock' | Should -BeNullOrEmpty
    }

    It 'is run on the main host as soon as its disk can be had, and the source does not end before' {
        Set-FailurePoint $setup.Host.main 'main.committed=park'
        $job = Get-KvmVm -KvmHost $setup.Connection.source -Name disk1 | Start-SplitMigration @arguments -AsJob
        try {
            Wait-FailurePoint $setup.Host.main 'main.committed'
            # Between the two QEMUs nobody has the disk: another takes it, and the main host's is refused to run.
            $other = '/run/other.pid'
            $null = Invoke-OnHost $setup.Host.sub1 ("qemu-system-x86_64 -S -nodefaults -display none -machine q35,accel=tcg -m 16M -pidfile $other -daemonize " +
                "-drive file=$disk,format=raw,if=none,id=d0 -device virtio-blk-pci,drive=d0 </dev/null >/dev/null 2>&1")
            Resume-FailurePoint $setup.Host.main 'main.committed'
            Wait-Until { (Get-VmRemotePaging -KvmHost $setup.Connection.main).Error -like '*lock*' } 'the main host can not run it'
            "$((Get-VmRemotePaging -KvmHost $setup.Connection.main).IsVmRunning)" | Should -Be 'False'
            Invoke-OnHost $setup.Host.source 'pgrep -c qemu-system || true' | Should -Be '1'
            (Get-SplitMigration -KvmHost $setup.Connection.source | Where-Object State -EQ 'SwitchOver').DowntimeMilliseconds | Should -BeGreaterThan 0
            $null = Invoke-OnHost $setup.Host.sub1 "kill -9 `$(cat $other)"
            $null = Wait-Job $job -Timeout 60
            (Receive-Job $job).State | Should -Be 'Completed'
        }
        finally { Clear-FailurePoint $setup.Host.main }
        Move-LabGuestConsole -Guest $guest -LabHost $setup.Host.main
        (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
    }
}

Describe 'Recovery: a main host that can not run the VM at first' -Tag 'Vm' {
    BeforeAll {
        $setup = New-ConnectedLab source, main, sub1
    }

    AfterAll {
        Remove-ConnectedLab
    }

    It 'is asked again, and the source gives nothing up before the VM runs there' {
        $guest = Start-Oracle $setup.Host.source twice
        Set-FailurePoint $setup.Host.main 'main.cont=fail'
        $result = Get-KvmVm -KvmHost $setup.Connection.source -Name twice |
            Start-SplitMigration -MainHost $setup.Connection.main -SubHost $setup.Connection.sub1 -MainMemory 128MB
        $result.State | Should -Be 'Completed'
        [IO.File]::Exists($setup.Host.main.PathOf('/run/fctrans/main.cont.reached')) | Should -BeTrue
        (Get-KvmVm -KvmHost $setup.Connection.main -Name twice).State | Should -Be 'running'
        Move-LabGuestConsole -Guest $guest -LabHost $setup.Host.main
        (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
    }
}

Describe 'Recovery: a migration that is given up at the moment of its commitment' -Tag 'Vm' {
    BeforeAll {
        $setup = New-ConnectedLab source, main, sub1
    }

    AfterAll {
        Remove-ConnectedLab
    }

    It 'says at once that it is too late, and completes' {
        $guest = Start-Oracle $setup.Host.source late
        Set-FailurePoint $setup.Host.source 'source.committing=park;source.committed=park'
        $job = Get-KvmVm -KvmHost $setup.Connection.source -Name late |
            Start-SplitMigration -MainHost $setup.Connection.main -SubHost $setup.Connection.sub1 -MainMemory 128MB -AsJob
        Wait-FailurePoint $setup.Host.source 'source.committing'
        # Stop-SplitMigration waits for an answer, so the parked worker is let go by the host, once it has been told to give up.
        $null = Invoke-OnHost $setup.Host.source ('setsid sh -c "until grep -q ''to be given up'' /run/fctrans/*/source/worker.log; do :; done; ' +
            'touch /run/fctrans/source.committing.go" >/dev/null 2>&1 </dev/null & true')
        { Get-SplitMigration -KvmHost $setup.Connection.source | Stop-SplitMigration -Confirm:$false -ErrorAction Stop } | Should -Throw -ErrorId 'MigrationCommitted*'
        [IO.File]::Exists($setup.Host.source.PathOf('/run/fctrans/source.committed.reached')) | Should -BeTrue
        "$($job.State)" | Should -Be 'Running'
        Resume-FailurePoint $setup.Host.source 'source.committed'
        $null = Wait-Job $job -Timeout 60
        (Receive-Job $job).State | Should -Be 'Completed'
        Move-LabGuestConsole -Guest $guest -LabHost $setup.Host.main
        (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
    }
}

Describe 'Recovery: a main worker that is started again while a sub-host is gone' -Tag 'Vm' {
    BeforeAll {
        $setup = New-ConnectedLab source, main, sub1, sub2
        $guest = Start-Oracle $setup.Host.source split
        $result = Get-KvmVm -KvmHost $setup.Connection.source -Name split |
            Start-SplitMigration -MainHost $setup.Connection.main -SubHost $setup.Connection.sub1, $setup.Connection.sub2 -MainMemory 96MB -Mode PreCopy
        $result.State | Should -Be 'Completed'
        Move-LabGuestConsole -Guest $guest -LabHost $setup.Host.main
    }

    AfterAll {
        Remove-ConnectedLab
    }

    It 'says what it waits for, goes on without it when it is given up, and ends with QEMU' {
        # Its memory error would end this guest, whose CPUs are emulated: it does not get that far. The paging tests show what a guest gets.
        $null = Invoke-OnHost $setup.Host.main 'kill -STOP $(pgrep qemu-system)'
        $there = (Get-VmRemotePaging -KvmHost $setup.Connection.main).RemoteBytesBySubHost[0]
        $there | Should -BeGreaterThan 0
        $null = Invoke-OnHost $setup.Host.sub1 'kill -9 $(cat /run/fctrans/*/sub/supervisor.pid) $(cat /run/fctrans/*/sub/worker.pid); rm -rf /dev/shm/fctrans-*-store'
        $killed = Stop-Worker $setup.Host.main main
        Wait-Until { (Invoke-OnHost $setup.Host.main 'cat /run/fctrans/*/main/worker.pid') -ne $killed } 'a new worker has started'
        Wait-Until { (Get-VmRemotePaging -KvmHost $setup.Connection.main) | Where-Object { $_.State -eq 'waiting' -and $_.Error -like "*$($setup.Host.sub1.Address)*" } } 'it says that it waits for the sub-host'
        { Set-VmRemotePaging split -MainMemory 128MB -ErrorAction Stop } | Should -Throw -ExpectedMessage '*waits*'
        # Told to stop, it does; and the next one waits likewise.
        $agent = Invoke-OnHost $setup.Host.main 'readlink /proc/$(cat /run/fctrans/*/main/worker.pid)/exe'
        $null = Invoke-OnHost $setup.Host.main 'kill -TERM $(cat /run/fctrans/*/main/worker.pid)'
        Wait-Until { -not (Invoke-OnHost $setup.Host.main 'pgrep -f "fctrans-agent[ ]worker.*/main" ; true') } 'it has ended'
        $null = Invoke-OnHost $setup.Host.main "$agent supervise /run/fctrans/*/main </dev/null >/dev/null 2>&1 & true"
        Wait-Until { (Get-VmRemotePaging -KvmHost $setup.Connection.main).State -eq 'waiting' } 'the next one waits'
        $paging = Remove-VmSubHost split $setup.Host.sub1.Address -Lost -Confirm:$false -PassThru
        $paging.SubHostStates -join ' ' | Should -Be 'lost serving'
        Wait-Until { (Get-VmRemotePaging -KvmHost $setup.Connection.main).State -eq 'lost' } 'it pages again'
        # The guest may have freed some of it in the meantime.
        $lost = (Get-VmRemotePaging -KvmHost $setup.Connection.main).LostBytes
        $lost | Should -BeGreaterThan ($there / 2)
        $lost | Should -BeLessThan ($there * 1.1)
        $killed = Stop-Worker $setup.Host.main main
        Wait-Until { (Invoke-OnHost $setup.Host.main 'cat /run/fctrans/*/main/worker.pid') -ne $killed } 'a new worker has started'
        Wait-Until { (Get-VmRemotePaging -KvmHost $setup.Connection.main).State -eq 'lost' } 'it knows what is lost'
        (Get-VmRemotePaging -KvmHost $setup.Connection.main).LostBytes | Should -Be $lost
        $null = Invoke-OnHost $setup.Host.main 'kill -9 $(pgrep qemu-system)'
        foreach ($name in 'main', 'sub2') { Wait-Until { -not (Get-LeftOver $setup.Host[$name]) } "nothing is left on $name" }
    }
}

Describe 'Recovery: a last word that was not heard' -Tag 'Vm' {
    BeforeAll {
        $setup = New-ConnectedLab source, main, sub1
        $guest = Start-Oracle $setup.Host.source unheard
        $arguments = @{ MainHost = $setup.Connection.main; SubHost = $setup.Connection.sub1; MainMemory = 128MB }
    }

    AfterEach {
        foreach ($name in 'source', 'main', 'sub1') {
            Clear-FailurePoint $setup.Host[$name]
            $null = Invoke-OnHost $setup.Host[$name] 'rm -f /run/fctrans/patience'
        }
    }

    AfterAll {
        Remove-ConnectedLab
    }

    It 'is not waited for by hosts whose source never came' {
        Set-FailurePoint $setup.Host.source 'source.preparing=park'
        Set-Patience $setup.Host.main 'main.first-contact=3'
        $job = Get-KvmVm -KvmHost $setup.Connection.source -Name unheard | Start-SplitMigration @arguments -AsJob
        Wait-FailurePoint $setup.Host.source 'source.preparing'
        foreach ($name in 'main', 'sub1') { Wait-Until { -not (Get-LeftOver $setup.Host[$name]) } "nothing is left on $name" }
        Resume-FailurePoint $setup.Host.source 'source.preparing'
        $null = Wait-Job $job -Timeout 60
        $job.State | Should -Be 'Failed'
        Remove-Job $job -Force
        Assert-RunsAtSource $guest
    }

    It 'is said again when the link is back, and a main host that had all of the VM leaves nothing' {
        Set-FailurePoint $setup.Host.main 'main.loaded=park'
        # From a PowerShell that is killed then: it would clear up too.
        $lab = $setup.Lab
        $script = "Import-Module '$root/out/FCtrans/FCtrans.psd1'; " +
            "`$s, `$m, `$a = '$($setup.Host.source.Address)', '$($setup.Host.main.Address)', '$($setup.Host.sub1.Address)' | " +
            "ForEach-Object { Connect-KvmHost -HostName `$_ -KeyFile '$($lab.KeyPath)' -KnownHostsFile '$($lab.KnownHostsPath)' }; " +
            "Get-KvmVm -KvmHost `$s -Name unheard | Start-SplitMigration -MainHost `$m -SubHost `$a -MainMemory 128MB"
        $start = [Diagnostics.ProcessStartInfo]::new([Environment]::ProcessPath)
        foreach ($argument in '-NoProfile', '-NonInteractive', '-Command', $script) { $start.ArgumentList.Add($argument) }
        $start.RedirectStandardOutput = $true
        $powershell = [Diagnostics.Process]::Start($start)
        try {
            Wait-FailurePoint $setup.Host.main 'main.loaded'
        }
        finally {
            $powershell.Kill()
            $powershell.WaitForExit()
        }

        Set-LabLink -LabHost $setup.Host.main -Cut
        try {
            # Cut off from each other; the lab's own way to a host is another.
            Wait-Until { (Invoke-OnHost $setup.Host.source 'ls /run/fctrans/*/source/ended 2>/dev/null; true') } 'the source has given up'
            Resume-FailurePoint $setup.Host.main 'main.loaded'
            Wait-Until { (Invoke-OnHost $setup.Host.main 'ls /run/fctrans/*/main/prepared 2>/dev/null; true') } 'the main host has all of the VM'
            Get-LeftOver $setup.Host.main | Should -Not -BeNullOrEmpty
        }
        finally {
            Set-LabLink -LabHost $setup.Host.main -Restore
        }

        Assert-RunsAtSource $guest
    }
}
