# ./build.sh Test: the suite Pester, by our own runner in Tests/Pester.

<#
The Pester files in three lanes, about equally long: those of migrations mostly wait for hosts, so they run beside all others. Each lane has
a lab enclosure of its own, so they know nothing of each other. Those of the single cmdlets come first: they share a lab that stands for all.
#>
$pesterLanes = [ordered] @{
    'Pester.failures'   = @('SplitMigrationFailures.Tests.ps1')
    'Pester.migrations' = @('StartSplitMigration.Tests.ps1', 'SplitMigration.Tests.ps1', 'SplitMigrationRecovery.Tests.ps1', 'SplitVmLinks.Tests.ps1', 'Libvirt.Tests.ps1')
}

function Invoke-PesterSuite([string] $Results) {
    $rest = @([IO.Directory]::GetFiles((Get-Path Tests Pester), '*.Tests.ps1', 'AllDirectories'))
    $beside = [ordered] @{}
    foreach ($lane in $pesterLanes.Keys) {
        $names = $pesterLanes[$lane]
        $files = @($rest | Where-Object { [IO.Path]::GetFileName($_) -in $names })
        $rest = @($rest | Where-Object { $_ -notin $files })
        $beside[$lane] = Start-PesterLane $lane $Results $files
    }

    $program, $arguments = Get-PesterCommand 'Pester' $Results $rest
    & $program @arguments | Out-Host
    $count = Add-PesterResult 'Pester' $Results $LASTEXITCODE
    foreach ($lane in $beside.Keys) {
        $beside[$lane].WaitForExit()
        $Host.UI.Write([IO.File]::ReadAllText([IO.Path]::Combine($Results, "$lane.log")))
        $count += Add-PesterResult $lane $Results $beside[$lane].ExitCode
    }

    if ($count -eq 0 -and -not $Filter) { Add-Failure 'Pester' 'no test was found' '' }
}

function Get-PesterCommand([string] $Name, [string] $Results, [string[]] $Files) {
    $command = @(
        (Get-PowerShellPath), '-NoProfile', '-NonInteractive', '-File', (Get-Path Tests Pester Run.ps1)
        '-Path', ($Files -join ','), '-ResultFile', [IO.Path]::Combine($Results, "$Name.json")
    )
    if ($Filter) { $command += @('-Filter', $Filter) }
    Get-LabCommand $command
}

<# Its output goes to a file: two lanes on one screen would be nobody's. #>
function Start-PesterLane([string] $Name, [string] $Results, [string[]] $Files) {
    $start = [Diagnostics.ProcessStartInfo]::new('/bin/sh')
    $words = @('-c', 'log=$1; shift; exec "$@" >"$log" 2>&1 </dev/null', 'sh', [IO.Path]::Combine($Results, "$Name.log")) + @(Get-PesterCommand $Name $Results $Files)
    foreach ($word in $words) { $start.ArgumentList.Add($word) }
    [Diagnostics.Process]::Start($start)
}

<# How many tests a lane has run. #>
function Add-PesterResult([string] $Lane, [string] $Results, [int] $Status) {
    $report = [IO.Path]::Combine($Results, "$Lane.json")
    if (-not [IO.File]::Exists($report)) {
        Add-Failure 'Pester' "the test program of $Lane ended abnormally" "exit status $Status"
        return 1
    }

    $before = $tally.Failed
    $count = 0
    $document = [Text.Json.JsonDocument]::Parse([IO.File]::ReadAllText($report))
    try {
        foreach ($test in $document.RootElement.GetProperty('tests').EnumerateArray()) {
            $count++
            $name = $test.GetProperty('name').GetString()
            $detail = $test.GetProperty('detail').GetString()
            switch ($test.GetProperty('outcome').GetString()) {
                'Passed' { $tally.Passed++ }
                'Skipped' { Add-Skip 'Pester' $name $detail }
                default { Add-Failure 'Pester' $name $detail }
            }
        }
    }
    finally { $document.Dispose() }

    if ($Status -ne 0 -and $tally.Failed -eq $before) { Add-Failure 'Pester' "the test program of $Lane ended abnormally" "exit status $Status" }
    $count
}
