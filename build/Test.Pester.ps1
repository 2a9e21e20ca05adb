# ./build.sh Test: the suite Pester, by our own runner in Tests/Pester.

<#
The Pester files in two lanes: those of migrations that go wrong, which mostly wait for hosts, run beside all others. Each lane has a lab
enclosure of its own, so they know nothing of each other. Those of the single cmdlets come first: they share a lab that stands for all.
#>
function Invoke-PesterSuite([string] $Results) {
    $aside = 'SplitMigrationFailures.Tests.ps1', 'StartSplitMigration.Tests.ps1'
    $files = @([IO.Directory]::GetFiles((Get-Path Tests Pester), '*.Tests.ps1', 'AllDirectories'))
    $beside = @($files | Where-Object { [IO.Path]::GetFileName($_) -in $aside })
    $lane = Start-PesterLane 'Pester.beside' $Results $beside
    $program, $arguments = Get-PesterCommand 'Pester' $Results @($files | Where-Object { $_ -notin $beside })
    & $program @arguments | Out-Host
    $status = $LASTEXITCODE
    $lane.WaitForExit()
    $Host.UI.Write([IO.File]::ReadAllText([IO.Path]::Combine($Results, 'Pester.beside.log')))
    $count = (Add-PesterResult 'Pester' $Results $status) + (Add-PesterResult 'Pester.beside' $Results $lane.ExitCode)
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
