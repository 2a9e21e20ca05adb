# The main job on real parts: a live Linux guest is split over lab hosts, works on, and never sees a wrong byte.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, 'LabFixture.ps1'))
}

Describe 'A live VM split over a main host and two sub-hosts' -Tag 'Vm' {
    BeforeAll {
        $mainMemory = 192MB
        $setup = New-ConnectedLab source, main, sub1, sub2
        $source, $main, $sub1, $sub2 = 'source', 'main', 'sub1', 'sub2' | ForEach-Object { $setup.Connection[$_] }
        $guest = Start-LabGuest -LabHost $setup.Host.source -Name vm1 -Memory 2GB -Smp 4
        $null = Invoke-LabGuest -Guest $guest -Command 'fill 768'
        $null = Invoke-LabGuest -Guest $guest -Command 'free 384'
        $null = Invoke-LabGuest -Guest $guest -Command 'run rate=4 threads=1 pace=64'
        $ramPath = $guest.RamPath
        $memory = Invoke-LabGuest -Guest $guest -Command 'meminfo'
        $usedBytes = ($memory.MemTotal - $memory.MemFree) * 1024
        $vm = Get-KvmVm -KvmHost $source -Name vm1
        $unused = Get-VmUnusedMemory -VM $vm
        $whatIf = Start-SplitMigration -VM $vm -MainHost $main -SubHost $sub1, $sub2 -MainMemory $mainMemory -WhatIf
        $leftByWhatIf = Get-LeftOver $setup.Host.main
        $result = $vm | Start-SplitMigration -MainHost $main -SubHost $sub1, $sub2 -MainMemory $mainMemory
        Move-LabGuestConsole -Guest $guest -LabHost $setup.Host.main
    }

    AfterAll {
        Remove-ConnectedLab
    }

    It 'finds what the guest does not use' {
        $unused.Method | Should -Be 'buddy'
        $unused.GuestKernel | Should -Match '^6\.'
        # MemFree leaves out what lies on per-CPU lists (up to some 20 MiB a processor after the guest has freed much) and what the guest
        # has set aside but never touched.
        [Math]::Abs([double] $unused.UnusedBytes - $memory.MemFree * 1024) | Should -BeLessThan 96MB
    }

    It 'does nothing with -WhatIf' {
        $whatIf | Should -BeNullOrEmpty
        $leftByWhatIf | Should -BeNullOrEmpty
    }

    It 'completes, and tells what it did' {
        $result.State | Should -Be 'Completed'
        $result.DowntimeMilliseconds | Should -BeGreaterThan 0
        $result.BytesSentToMainHost | Should -BeGreaterThan 1MB
        $result.BytesSentToSubHosts | Should -HaveCount 2
        foreach ($bytes in $result.BytesSentToSubHosts) { $bytes | Should -BeGreaterThan 1MB }
    }

    It 'sends no more than the guest really uses plus 10 %' {
        $result.BytesSent | Should -BeLessThan ($usedBytes * 1.1)
        $result.UnusedBytesSkipped | Should -BeGreaterThan 1GB
    }

    It 'leaves nothing of the VM at the source' {
        Invoke-OnHost $setup.Host.source 'pgrep -c qemu-system || true' | Should -Be '0'
        [IO.File]::Exists($setup.Host.source.PathOf($ramPath)) | Should -BeFalse
        Get-KvmVm -KvmHost $source | Should -BeNullOrEmpty
    }

    It 'is found from the source and from the main host afterwards' {
        (Get-SplitMigration -KvmHost $source).State | Should -Be 'Completed'
        $moved = Get-KvmVm -KvmHost $main -Name vm1
        $moved.State | Should -Be 'running'
        $moved.CanSplit | Should -BeFalse
    }

    It 'goes on working with remote paging, without a wrong byte' {
        $stat = Get-LabGuestStat -Guest $guest -FullPass -TimeoutSeconds 240
        $stat.errors | Should -Be 0
        $paging = Get-VmRemotePaging -KvmHost $main
        $paging.State | Should -Be 'paging'
        foreach ($count in $paging.PageInsBySubHost) { $count | Should -BeGreaterThan 0 }
        foreach ($count in $paging.PageOutsBySubHost) { $count | Should -BeGreaterThan 0 }
        $paging.PeakResidentBytes | Should -BeLessOrEqual ($mainMemory * 1.05)
    }

    It 'has one queue for the faults of two CPUs' {
        Invoke-OnHost $setup.Host.main 'ls -l /proc/$(pgrep qemu-system)/fd | grep -c userfaultfd' | Should -Be '2'
    }

    It 'really holds no more memory on the main host than it says' {
        $blocks = [long] (Invoke-OnHost $setup.Host.main 'du -s --block-size=1 /dev/shm | cut -f1')
        $blocks | Should -BeLessOrEqual ($mainMemory * 1.05)
    }

    It 'takes another limit while it runs, and holds it' {
        $limit = [long] ($mainMemory * 0.95)
        $set = Set-VmRemotePaging vm1 -MainMemory $limit -EvictionPolicy OldestFirst -PassThru
        $set.LimitBytes | Should -Be $limit
        $set.EvictionPolicy | Should -Be 'OldestFirst'
        $set.Prefetch | Should -BeTrue
        Wait-Until { (Get-VmRemotePaging -KvmHost $main).ResidentBytes -le $limit * 1.05 } 'what is too much has left'
        [long] (Invoke-OnHost $setup.Host.main 'du -s --block-size=1 /dev/shm | cut -f1') | Should -BeLessOrEqual ($limit * 1.1)
        { Set-VmRemotePaging vm1 -MainMemory 100KB -ErrorAction Stop } | Should -Throw -ErrorId 'PagingNotChanged,*'
        { Set-VmRemotePaging nobody -Prefetch $true -ErrorAction Stop } | Should -Throw -ErrorId 'MigrationNotFound,*'
    }

    It 'goes on when the <Role> worker on <HostName> is killed' -ForEach @(
        @{ Role = 'main'; HostName = 'main' }
        @{ Role = 'sub'; HostName = 'sub1' }
        @{ Role = 'main'; HostName = 'main' }
    ) {
        $before = Get-VmRemotePaging -KvmHost $main
        $killed = Stop-Worker $setup.Host[$HostName] $Role
        Wait-Until { (Invoke-OnHost $setup.Host[$HostName] "cat /run/fctrans/*/$Role/worker.pid") -ne $killed } 'a new worker has started'
        $stat = Get-LabGuestStat -Guest $guest -FullPass -TimeoutSeconds 240
        $stat.errors | Should -Be 0
        $after = Get-VmRemotePaging -KvmHost $main
        if ($Role -eq 'main') {
            $after.Restarts | Should -BeGreaterThan $before.Restarts
            $page = [IO.Path]::GetTempFileName()
            $after | Export-SplitMigrationReport -Path $page
            [Net.WebUtility]::HtmlDecode([IO.File]::ReadAllText($page)) | Should -Match "Remote paging since the main host's worker was last started again"
            [IO.File]::Delete($page)
        }

        $after.State | Should -Be 'paging'
        $after.PageIns | Should -BeGreaterThan 0
    }

    It 'keeps its limit over restarts, and takes the first one again' {
        $paging = Get-VmRemotePaging -KvmHost $main
        $paging.LimitBytes | Should -Be ([long] ($mainMemory * 0.95))
        $paging.EvictionPolicy | Should -Be 'OldestFirst'
        $paging | Set-VmRemotePaging -MainMemory $mainMemory -EvictionPolicy Refault
        (Get-VmRemotePaging -KvmHost $main).LimitBytes | Should -Be $mainMemory
    }

    It 'goes on when the <Role> worker on <HostName> comes under another version of the agent' -ForEach @(
        @{ Role = 'main'; HostName = 'main' }
        @{ Role = 'sub'; HostName = 'sub1' }
    ) {
        $labHost = $setup.Host[$HostName]
        $restarts = (Get-VmRemotePaging -KvmHost $main).Restarts
        $before = Invoke-OnHost $labHost "grep -h . /run/fctrans/*/$Role/worker.pid /run/fctrans/*/$Role/supervisor.pid"
        # Another file at the agent's place: the workers run the one that was there.
        $path = $setup.Connection[$HostName].AgentPath
        $null = Invoke-OnHost $labHost "cp -p '$path' '$path.new' && mv '$path.new' '$path'"
        $connect = @{ HostName = $labHost.Address; KeyFile = $setup.Lab.KeyPath; KnownHostsFile = $setup.Lab.KnownHostsPath; Name = 'again' }
        try {
            (Connect-KvmHost @connect -WarningVariable warnings -WarningAction SilentlyContinue).OutdatedWorkers | Should -Be 1
            "$warnings" | Should -BeLike '*-UpgradeWorker*'
            (Connect-KvmHost @connect -UpgradeWorker).OutdatedWorkers | Should -Be 0
        }
        finally {
            Disconnect-KvmHost again
        }

        $after = Invoke-OnHost $labHost "grep -h . /run/fctrans/*/$Role/worker.pid /run/fctrans/*/$Role/supervisor.pid"
        foreach ($id in $after -split '\s+') { $before -split '\s+' | Should -Not -Contain $id }
        foreach ($id in $after -split '\s+') { Invoke-OnHost $labHost "readlink /proc/$id/exe" | Should -Be $path }
        (Get-LabGuestStat -Guest $guest -FullPass -TimeoutSeconds 240).errors | Should -Be 0
        $paging = Get-VmRemotePaging -KvmHost $main
        $paging.State | Should -Be 'paging'
        # Its figures begin anew, so it counts as one that was started again.
        if ($Role -eq 'main') { $paging.Restarts | Should -BeGreaterThan $restarts }
    }

    It 'goes on without a sub-host that is removed while it runs' {
        $removed = Remove-VmSubHost vm1 $setup.Host.sub2.Address -Confirm:$false -PassThru
        $removed.SubHostStates -join ' ' | Should -Be 'serving left'
        $removed.RemoteBytesBySubHost[1] | Should -Be 0
        Wait-Until { -not (Get-LeftOver $setup.Host.sub2) } 'nothing is left on the sub-host'
        { Remove-VmSubHost vm1 $setup.Host.sub2.Address -Confirm:$false -ErrorAction Stop } | Should -Throw -ErrorId 'SubHostNotRemoved,*'
        # A main worker that is started again asks nobody who has left.
        $killed = Stop-Worker $setup.Host.main main
        Wait-Until { (Invoke-OnHost $setup.Host.main 'cat /run/fctrans/*/main/worker.pid') -ne $killed } 'a new worker has started'
        (Get-LabGuestStat -Guest $guest -FullPass -TimeoutSeconds 240).errors | Should -Be 0
        (Get-VmRemotePaging -KvmHost $main).State | Should -Be 'paging'
    }

    It 'serves fresh memory without the network' {
        $null = Invoke-LabGuest -Guest $guest -Command 'pause'
        $before = Get-VmRemotePaging -KvmHost $main
        (Invoke-LabGuest -Guest $guest -Command 'fresh 256').errors | Should -Be 0
        $after = Get-VmRemotePaging -KvmHost $main
        # What the guest's kernel has in stock per processor is not counted as free, so a part of the pages may be known already.
        $after.UnusedFaults - $before.UnusedFaults | Should -BeGreaterThan 52000
        $after.PageIns - $before.PageIns | Should -BeLessThan 13000
    }

    It 'costs the <Role> host next to nothing while its guest does nothing' -ForEach @(
        @{ Role = 'main'; HostName = 'main' }
        @{ Role = 'sub'; HostName = 'sub1' }
    ) {
        # Of the worker: times that a thread of it went to sleep, and CPU time in ticks of 10 ms, before and after. The guest's kernel still
        # touches a page now and then, and both the runtime and the looks at what the guest has free wake up by the clock; all of that
        # comes to some 1 to 5 a second. Something that looks each 100 ms whether there is work would be twice that.
        $look = "p=`$(cat /run/fctrans/*/$Role/worker.pid); cat /proc/`$p/task/*/status | awk '/^voluntary/ { n += `$2 } END { print n }'; awk '{ print `$14 + `$15 }' /proc/`$p/stat"
        $least = @{ Wakes = [long]::MaxValue; Ticks = [long]::MaxValue }
        try {
            Wait-Until {
                $n = [long[]] ((Invoke-OnHost $setup.Host[$HostName] "$look; sleep 5; $look") -split '\s+')
                if ($n[2] - $n[0] -lt $least.Wakes) { $least.Wakes = $n[2] - $n[0]; $least.Ticks = $n[3] - $n[1] }
                $least.Wakes -le 25 -and $least.Ticks -le 5
            } 'the worker sleeps' 60
        }
        catch {
            throw "Within 5 s the $Role worker woke up $($least.Wakes) times or more, and used $($least.Ticks * 10) ms."
        }
    }

    It 'draws the map of its memory by host, and fits it into a picture' {
        $paging = Get-VmRemotePaging -KvmHost $main
        $map = @(Get-VmMemoryMap vm1 -Granularity 4KB)
        $resident = 0; $remote = 0; $next = 0
        foreach ($range in $map) { $range.StartBytes | Should -Be $next; $next += $range.LengthBytes; $resident += $range.ResidentBytes; $remote += $range.RemoteBytes }
        $next | Should -Be 2GB
        # Whether a page is packed or not makes no difference to where it lies.
        $paging.PackedBytes | Should -BeGreaterThan 16MB
        [Math]::Abs($resident - [double] $paging.ResidentBytes - $paging.PackedBytes) | Should -BeLessThan 16MB
        [Math]::Abs($remote - [double] $paging.RemoteBytes) | Should -BeLessThan 16MB
        @($map | Where-Object HotBytes)[0].Place | Should -Not -BeNullOrEmpty
        @($map.Place | Where-Object { $_ }) | Should -Contain $setup.Host.sub1.Address
        $lines = @(Show-VmMemoryMap vm1 -Width 70 -Height 20)
        $lines.Count | Should -BeLessOrEqual 20
        $lines -join "`n" | Should -Match "1 used, on $($setup.Host.sub1.Address)"
        (-join $lines) | Should -Match '#'
        (-join $lines) | Should -Match '111'
    }

    It 'is looked at again and again without one page being fetched for that' {
        $before = Get-VmRemotePaging -KvmHost $main
        $looks = [Collections.Generic.List[object]]::new()
        do { Get-VmUnusedMemory vm1 -Continuous -Interval 0.1 | ForEach-Object { $looks.Add($_); if ($looks.Count -eq 5) { break } } } while ($false)
        $looks[4].Method | Should -Be 'buddy'
        $looks[4].GuestKernel | Should -Match '^6\.'
        $memory = Invoke-LabGuest -Guest $guest -Command 'meminfo'
        # Holes that the guest has in use but never wrote count as never touched.
        [double] $looks[4].UnusedBytes | Should -BeGreaterThan ($memory.MemFree * 1024 - 64MB)
        $after = Get-VmRemotePaging -KvmHost $main
        $after.PageIns - $before.PageIns | Should -BeLessThan 2000
    }

    It 'answers others while memory is given back slowly' {
        $shell = [powershell]::Create([Management.Automation.Runspaces.InitialSessionState]::CreateDefault2())
        try {
            $null = $shell.AddCommand('Import-Module').AddParameter('Name', [IO.Path]::Combine($root, 'out', 'FCtrans', 'FCtrans.psd1')).Invoke()
            $shell.Commands.Clear()
            $null = $shell.AddCommand('Optimize-VmMemory').AddParameters(@{ Name = 'vm1'; MaxBytesPerSecond = 1MB })
            $null = Invoke-LabGuest -Guest $guest -Command 'free 60'
            $before = Get-VmRemotePaging -KvmHost $main
            $running = $shell.BeginInvoke()
            Wait-Until { $running.IsCompleted -or (Get-VmRemotePaging -KvmHost $main).UnusedBytes -gt $before.UnusedBytes } 'it gives memory back'
            # At this rate it takes a minute, with rests of ten seconds.
            $watch = [Diagnostics.Stopwatch]::StartNew()
            1..3 | ForEach-Object { (Get-VmUnusedMemory vm1).Method | Should -Be 'buddy' }
            $watch.Elapsed.TotalSeconds | Should -BeLessThan 25
            $shell.Stop()
        }
        finally {
            $shell.Dispose()
        }
    }

    It 'gives back at once, on all hosts, what its guest frees' {
        $before = Get-VmRemotePaging -KvmHost $main
        $null = Invoke-LabGuest -Guest $guest -Command 'free 200'
        $wouldFree = Optimize-VmMemory vm1 -WhatIf
        $wouldFree.FreedBytes | Should -Be 0
        $freed = Get-KvmVm vm1 -KvmHost $main | Optimize-VmMemory
        $freed.HostName | Should -Be $setup.Host.main.Address
        $freed.Method | Should -Be 'buddy'
        $freed.FreedRemoteBytes | Should -BeLessOrEqual $freed.FreedBytes
        $after = Get-VmRemotePaging -KvmHost $main
        # The main host's own turns may have had a part of it.
        $after.ReclaimedBytes - $before.ReclaimedBytes | Should -BeGreaterThan 150MB
        [double] $before.RemoteBytes - $after.RemoteBytes | Should -BeGreaterThan 10MB
        [double] $after.UnusedBytes - $before.UnusedBytes | Should -BeGreaterThan 150MB
        $after.Errors | Should -Be $before.Errors
    }

    It 'has verified every page with no error in the end' {
        (Invoke-LabGuest -Guest $guest -Command 'verify' -TimeoutSeconds 240).errors | Should -Be 0
        (Get-LabGuestStat -Guest $guest).errors | Should -Be 0
    }

    It 'leaves nothing on any host when the VM ends' {
        Stop-LabGuest -Guest $guest
        foreach ($labHost in $setup.Host.main, $setup.Host.sub1, $setup.Host.sub2) {
            Wait-Until { -not (Get-LeftOver $labHost) } "nothing is left on $($labHost.Name)"
        }
    }
}
