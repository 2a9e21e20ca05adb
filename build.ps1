<#
.SYNOPSIS
Builds, tests, shows and measures FCtrans. Run it through ./build.sh, or with PowerShell 7.4 or later.

.DESCRIPTION
Keeps to the engine's own cmdlets and .NET, so that it runs in pwsh and in src/FCtrans.Shell alike.

.PARAMETER Target
Build   restore, compile, publish the agent, stage the importable module under out/FCtrans
Test    run all tests; the last line is "N passed, N failed, N skipped"; exit status 0 only if none failed
Demo    split a live VM over three lab hosts
Bench   run the benchmark NAME, write artifacts/bench/NAME.json
Shell   a PowerShell with the staged module importable
Clean   remove what was built; downloads under artifacts/cache stay

.PARAMETER Only
Test: the suites to run, comma-separated: the test projects under Tests (Unit, Abi, …) and Pester.

.PARAMETER Filter
Test: run only tests whose full name contains this text.

.PARAMETER Quiet
Build: say nothing when all goes well.
#>
param(
    [Parameter(Position = 0)] [string] $Target = 'Build',
    [string[]] $Only,
    [string] $Filter,
    [switch] $Quiet,
    [Parameter(ValueFromRemainingArguments)] [string[]] $Rest
)

Set-StrictMode -Version 3
$ErrorActionPreference = 'Stop'

$root = $PSScriptRoot
$artifacts = [IO.Path]::Combine($root, 'artifacts')
$out = [IO.Path]::Combine($root, 'out')
$configuration = 'Release'
$enterLab = [IO.Path]::Combine($root, 'Tests', 'Lab', 'enter')

# For those who run build.ps1 with pwsh instead of going through build.sh, which sets the same.
$env:DOTNET_CLI_TELEMETRY_OPTOUT = '1'
$env:DOTNET_NOLOGO = '1'
$env:MSBUILDDISABLENODEREUSE = '1'
$env:DOTNET_CLI_USE_MSBUILD_SERVER = '0'
$env:UseSharedCompilation = 'false'
if (($env:PSModulePath -split ':') -notcontains $out) { $env:PSModulePath = "${out}:$env:PSModulePath" }

# Each file is a command, or what several share. They use the variables above and the parameters.
foreach ($part in 'Common', 'Packages', 'Build', 'Test', 'Test.Xunit', 'Test.Pester', 'Demo', 'Bench', 'Clean') {
    . ([IO.Path]::Combine($root, 'build', "$part.ps1"))
}

try {
    switch ($Target) {
        'Build' { Invoke-Build }
        'Test' { Invoke-Test }
        'Demo' { Invoke-Demo $Rest }
        'Bench' { Invoke-Bench $Rest }
        'Shell' {
            Invoke-Build
            $arguments = @($Rest | Where-Object { $null -ne $_ })
            & (Get-PowerShellPath) @arguments
            exit $LASTEXITCODE
        }
        'Clean' { Invoke-Clean }
        default { throw "There is no target '$Target'. The targets are: Build, Test, Demo, Bench, Shell, Clean." }
    }
}
catch {
    $Host.UI.WriteErrorLine("build.ps1: $_")
    exit 1
}
