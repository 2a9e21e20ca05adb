<#
.SYNOPSIS
How long it takes until the module is there: Import-Module in a new PowerShell that has nothing but its engine, and again in the same one.
#>
param(
    [Parameter(Mandatory)] [string] $Output,
    [int] $Runs = 15
)

Set-StrictMode -Version 3
$ErrorActionPreference = 'Stop'
$root = [IO.Path]::GetFullPath([IO.Path]::Combine($PSScriptRoot, '..', '..'))
$manifest = [IO.Path]::Combine($root, 'out', 'FCtrans', 'FCtrans.psd1')
$shell = [Environment]::ProcessPath

$script = @"
`$watch = [Diagnostics.Stopwatch]::StartNew()
Import-Module '$manifest'
`$watch.Elapsed.TotalMilliseconds.ToString('R', [cultureinfo]::InvariantCulture)
`$watch.Restart()
Import-Module '$manifest' -Force
`$watch.Elapsed.TotalMilliseconds.ToString('R', [cultureinfo]::InvariantCulture)
"@
$first = [Collections.Generic.List[double]]::new()
$again = [Collections.Generic.List[double]]::new()
$process = [Collections.Generic.List[double]]::new()
$bare = [Collections.Generic.List[double]]::new()
# One more than counts: the first brings the files into memory.
foreach ($run in 0..$Runs) {
    $watch = [Diagnostics.Stopwatch]::StartNew()
    $said = @(& $shell -NoProfile -NonInteractive -Command $script)
    $whole = $watch.Elapsed.TotalMilliseconds
    if ($LASTEXITCODE -ne 0 -or $said.Count -ne 2) { throw "The import failed: $said" }
    $watch.Restart()
    $null = & $shell -NoProfile -NonInteractive -Command '1'
    if ($run -eq 0) { continue }
    $bare.Add($watch.Elapsed.TotalMilliseconds)
    $first.Add([double]::Parse($said[0], [cultureinfo]::InvariantCulture))
    $again.Add([double]::Parse($said[1], [cultureinfo]::InvariantCulture))
    $process.Add($whole)
}

Import-Module ([IO.Path]::Combine($root, 'bench', 'BenchReport.psm1'))
Write-BenchReport -Name import -Output $Output -Figure @(
    @{ Name = 'import in a bare engine'; Unit = 'ms'; Samples = $first; Comparison = 'atMost'; Target = 1000 }
    @{ Name = 'import again, forced'; Unit = 'ms'; Samples = $again; Comparison = 'atMost'; Target = 1000 }
    @{ Name = 'a process that imports it twice'; Unit = 'ms'; Samples = $process }
    @{ Name = 'a process that does nothing'; Unit = 'ms'; Samples = $bare }
)
