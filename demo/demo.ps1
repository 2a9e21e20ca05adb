<#
.SYNOPSIS
The main job, end to end: splits a live VM over three lab hosts, with the tracking of unused memory and without.

.DESCRIPTION
Runs inside the lab's enclosure (./build.sh Demo does that). Every figure it prints is measured in this run; they are also
written to artifacts/demo.json. Keeps to PowerShell's engine cmdlets and .NET.
#>
param(
    [string] $MainMemory = '256MB',
    [string] $Output
)

Set-StrictMode -Version 3
$ErrorActionPreference = 'Stop'
$root = [IO.Path]::GetDirectoryName($PSScriptRoot)
if (-not $Output) { $Output = [IO.Path]::Combine($root, 'artifacts', 'demo.json') }
Import-Module ([IO.Path]::Combine($root, 'out', 'FCtrans.Lab', 'FCtrans.Lab.psd1'))
Import-Module ([IO.Path]::Combine($root, 'out', 'FCtrans', 'FCtrans.psd1'))

$fillMiB = 1536
$freeMiB = 1024
$freshMiB = 512
$rewriteMiBPerSecond = 8
$mib = 1MB

function Say([string] $Text) { $Host.UI.WriteLine($Text) }

<# Waits until the main host's worker has nothing under way: two looks in a row see the same figures. #>
function Wait-Quiet($KvmHost) {
    $before = $null
    for ($i = 0; $i -lt 100; $i++) {
        $now = Get-VmRemotePaging -KvmHost $KvmHost
        $figures = "$($now.PageIns) $($now.PageOuts) $($now.UnusedFaults)"
        if ($figures -eq $before) { return $now }
        $before = $figures
        [void] [Threading.Thread]::CurrentThread.Join(50)
    }
    return $now
}

<# Waits until all that the guest has freed by now was looked for and given back: one look may be under way already, the next is whole. #>
function Wait-Reclaim($KvmHost) {
    $target = (Get-VmRemotePaging -KvmHost $KvmHost).ReclaimTurns + 2
    for ($i = 0; $i -lt 400; $i++) {
        if ((Get-VmRemotePaging -KvmHost $KvmHost).ReclaimTurns -ge $target) { return }
        [void] [Threading.Thread]::CurrentThread.Join(50)
    }
    throw 'The main host does not look for what the guest has freed.'
}

function Invoke-Run([bool] $TrackUnused) {
    Say ''
    Say "== Split migration with tracking of unused memory $(if ($TrackUnused) { 'on' } else { 'off' })"
    $lab = New-Lab
    try {
        $names = 'source', 'main', 'sub1', 'sub2'
        $hosts = foreach ($name in $names) { New-LabHost -Name $name }
        $source, $main, $sub1, $sub2 = foreach ($labHost in $hosts) {
            Connect-KvmHost -HostName $labHost.Address -Name $labHost.Name -KeyFile $lab.KeyPath -KnownHostsFile $lab.KnownHostsPath
        }

        $guest = Start-LabGuest -LabHost $hosts[0] -Name bigvm -Memory 4GB
        Say "  4 GiB Linux guest 'bigvm' runs on the source."
        [void] (Invoke-LabGuest -Guest $guest -Command "fill $fillMiB")
        [void] (Invoke-LabGuest -Guest $guest -Command "free $freeMiB")
        [void] (Invoke-LabGuest -Guest $guest -Command "run rate=$rewriteMiBPerSecond threads=1")
        $memory = Invoke-LabGuest -Guest $guest -Command 'meminfo'
        $guestUsedBytes = ($memory.MemTotal - $memory.MemFree) * 1024
        Say "  It filled $fillMiB MiB, freed $freeMiB MiB, and verifies and rewrites the rest. It really uses $([long] ($guestUsedBytes / $mib)) MiB."

        $vm = Get-KvmVm -KvmHost $source -Name bigvm
        $unused = Get-VmUnusedMemory -VM $vm
        $migration = Start-SplitMigration -VM $vm -MainHost $main -SubHost $sub1, $sub2 -MainMemory $MainMemory -TrackUnused:$TrackUnused -Confirm:$false
        Say ("  Moved in {0:F2} s, downtime {1:F0} ms." -f $migration.TotalSeconds, $migration.DowntimeMilliseconds)

        # The guest goes on working, now across its hosts, until it has verified every page of it.
        Move-LabGuestConsole -Guest $guest -LabHost $hosts[1]
        $verified = Invoke-LabGuest -Guest $guest -Command 'verify' -TimeoutSeconds 240
        $resident = (Get-VmRemotePaging -KvmHost $main).ResidentBytes
        Say "  On the main host it has verified $($verified.pages) pages, $($verified.errors) wrong."

        # Fresh memory: nothing else shall page meanwhile, so that what is counted is its alone.
        # Fresh memory is taken from what the guest has free now; with tracking the main host counts the page-ins of that apart from
        # those of the guest's program and kernel, which were used before and go out and in as ever. Without, it knows no difference.
        [void] (Invoke-LabGuest -Guest $guest -Command 'pause')
        if ($TrackUnused) { Wait-Reclaim $main }
        $before = Wait-Quiet $main
        $fresh = Invoke-LabGuest -Guest $guest -Command "fresh $freshMiB"
        $after = Get-VmRemotePaging -KvmHost $main
        $allPageIns = $after.PageIns - $before.PageIns
        $freshPageIns = if ($TrackUnused) { $after.PageInsOfFree - $before.PageInsOfFree } else { $allPageIns }
        # The other side of that count: as many pages of zeros as it took.
        $zeros = $after.UnusedFaults - $before.UnusedFaults
        if ($TrackUnused -and $zeros + $freshPageIns -lt $fresh.pages) { throw "Of $($fresh.pages) fresh pages only $zeros were answered with zeros." }
        Say "  It took $freshMiB MiB of fresh memory: $freshPageIns page-ins of it ($allPageIns in all), $($after.UnusedFaults - $before.UnusedFaults) pages of zeros."

        $last = Invoke-LabGuest -Guest $guest -Command 'verify' -TimeoutSeconds 240
        $stat = Invoke-LabGuest -Guest $guest -Command 'stat'
        $paging = Get-VmRemotePaging -KvmHost $main
        $errors = $stat.errors + $verified.errors + $last.errors
        if ($errors -ne 0) { throw "The guest has found $errors wrong pages." }

        [ordered] @{
            trackUnused                  = $TrackUnused
            guestMemoryBytes             = [long] $vm.MemoryBytes
            guestUsedBytes               = [long] $guestUsedBytes
            guestUnusedBytesFound        = [long] $unused.UnusedBytes
            totalSeconds                 = [double] $migration.TotalSeconds
            downtimeMilliseconds         = [double] $migration.DowntimeMilliseconds
            bytesSentToMainHost          = [long] $migration.BytesSentToMainHost
            bytesSentToSubHosts          = [long[]] @($migration.BytesSentToSubHosts)
            unusedBytesSkipped           = [long] $migration.UnusedBytesSkipped
            mainMemoryBytes              = [long] $paging.LimitBytes
            residentBytesOnMainHost      = [long] $resident
            peakResidentBytesOnMainHost  = [long] $paging.PeakResidentBytes
            pageIns                      = [long] $paging.PageIns
            pageInsBySubHost             = [long[]] @($paging.PageInsBySubHost)
            pageOuts                     = [long] $paging.PageOuts
            pageOutsBySubHost            = [long[]] @($paging.PageOutsBySubHost)
            unusedFaults                 = [long] $paging.UnusedFaults
            networkPageInsForFreshMemory = [long] $freshPageIns
            pageInsMeanwhile             = [long] $allPageIns
            freshPages                   = [long] $fresh.pages
            oraclePagesVerified          = [long] $stat.pages_verified
            oracleErrors                 = [long] $errors
        }
    }
    finally {
        Remove-Lab
    }
}

function Format-Bytes([long] $Bytes) { '{0:N1} MiB' -f ($Bytes / $mib) }

function Show-Runs($Runs) {
    $rows = @(
        , @('', 'tracking on', 'tracking off')
        , @('migration time', { '{0:F2} s' -f $_.totalSeconds })
        , @('downtime', { '{0:F0} ms' -f $_.downtimeMilliseconds })
        , @('sent to the main host', { Format-Bytes $_.bytesSentToMainHost })
        , @('sent to sub-host 1', { Format-Bytes $_.bytesSentToSubHosts[0] })
        , @('sent to sub-host 2', { Format-Bytes $_.bytesSentToSubHosts[1] })
        , @('unused memory skipped', { Format-Bytes $_.unusedBytesSkipped })
        , @('resident on the main host', { Format-Bytes $_.residentBytesOnMainHost })
        , @('page-ins', { '{0:N0}' -f $_.pageIns })
        , @('page-outs', { '{0:N0}' -f $_.pageOuts })
        , @('unused faults', { '{0:N0}' -f $_.unusedFaults })
        , @('page-ins for fresh memory', { '{0:N0}' -f $_.networkPageInsForFreshMemory })
        , @('pages verified by the guest', { '{0:N0}' -f $_.oraclePagesVerified })
        , @('wrong pages', { '{0:N0}' -f $_.oracleErrors })
    )
    Say ''
    foreach ($row in $rows) {
        $name, $figure, $second = $row
        $cells = if ($figure -is [scriptblock]) { foreach ($run in $Runs) { ($run | ForEach-Object $figure) } } else { $figure, $second }
        Say ('  {0,-30}{1,16}{2,16}' -f $name, $cells[0], $cells[1])
    }
}

$runs = @((Invoke-Run $true), (Invoke-Run $false))
Show-Runs $runs
[void] [IO.Directory]::CreateDirectory([IO.Path]::GetDirectoryName($Output))
$options = [System.Text.Json.JsonSerializerOptions]::new()
$options.WriteIndented = $true
[IO.File]::WriteAllText($Output, [System.Text.Json.JsonSerializer]::Serialize([object] ([ordered] @{ runs = $runs }), [object], $options) + "`n")
Say ''
Say "The figures are in $Output"
