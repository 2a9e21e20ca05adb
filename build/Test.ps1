# ./build.sh Test: build, run the suites one after the other, count.

<# Counts over all suites. A skip always has a reason here. #>
$tally = [pscustomobject] @{ Passed = 0; Failed = 0; Skipped = 0 }

function Add-Failure([string] $Suite, [string] $Name, [string] $Detail) {
    $tally.Failed++
    $Host.UI.WriteLine("FAILED  [$Suite] $Name")
    if ($Detail) { $Host.UI.WriteLine(($Detail.TrimEnd() -split "`n" | ForEach-Object { "        $_" }) -join "`n") }
}

function Add-Skip([string] $Suite, [string] $Name, [string] $Reason) {
    $tally.Skipped++
    if (-not $Reason) { $Reason = 'no reason was given' }
    $Host.UI.WriteLine("SKIPPED [$Suite] ${Name}: $($Reason.Trim())")
}

<# The test projects; those that need least come first, so that a plain mistake shows early. #>
function Get-TestProject {
    $projects = @(Get-SourceFile | Where-Object { $_.EndsWith('.Tests.csproj') })
    $order = 'Unit', 'Client.Unit', 'Abi', 'Kernel', 'Vm'
    $keys = [string[]] @($projects | ForEach-Object {
            $place = [Array]::IndexOf($order, [IO.Path]::GetFileName([IO.Path]::GetDirectoryName($_)))
            '{0:D2} {1}' -f ($place -lt 0 ? $order.Count - 2 : $place), $_
        })
    $sorted = [string[]] $projects
    [Array]::Sort($keys, $sorted, [StringComparer]::Ordinal)
    foreach ($project in $sorted) {
        [pscustomobject] @{ Suite = [IO.Path]::GetFileName([IO.Path]::GetDirectoryName($project)); Project = $project }
    }
}

function Invoke-Test {
    $wanted = @($Only | ForEach-Object { $_ -split ',' } | Where-Object { $_ })
    $projects = @(Get-TestProject)
    $suites = @($projects | ForEach-Object { $_.Suite }) + 'Pester'
    foreach ($name in $wanted) {
        if ($suites -notcontains $name) { throw "There is no test suite '$name'. The suites are: $($suites -join ', ')." }
    }

    $results = Get-Path artifacts test
    if ([IO.Directory]::Exists($results)) { [IO.Directory]::Delete($results, $true) }
    $null = [IO.Directory]::CreateDirectory($results)
    $watch = [Diagnostics.Stopwatch]::StartNew()
    $built = $true
    try {
        Install-DebianPackage (@($packagesToBuild.Keys) + @($packagesToRun.Keys) + @($packagesToTest.Keys))
        Invoke-Build
    }
    catch {
        # What doesn't build has failed; the other projects still tell what they know.
        $built = $false
        Add-Failure 'Build' 'the build' "$_"
    }

    foreach ($entry in $projects) {
        if ($wanted.Count -gt 0 -and $wanted -notcontains $entry.Suite) { continue }
        if (-not $built) {
            $lines = & dotnet build $entry.Project -c $configuration -v quiet -clp:NoSummary 2>&1
            if ($LASTEXITCODE -ne 0) {
                Add-Failure $entry.Suite 'does not build' ($lines -join "`n")
                continue
            }
        }

        $Host.UI.WriteLine("== $($entry.Suite)")
        Invoke-XunitSuite $entry.Suite $entry.Project $results
    }

    if ($wanted.Count -eq 0 -or $wanted -contains 'Pester') {
        $Host.UI.WriteLine('== Pester')
        if ($built) { Invoke-PesterSuite $results }
        else { Add-Failure 'Pester' 'not run: there is no staged module' '' }
    }

    if ($tally.Passed + $tally.Failed + $tally.Skipped -eq 0) { Add-Failure 'Test' 'no test was found' ($Filter ? "No test's name contains '$Filter'." : '') }
    $Host.UI.WriteLine("Tests took $([int] $watch.Elapsed.TotalSeconds) s, the build included.")
    $Host.UI.WriteLine("$($tally.Passed) passed, $($tally.Failed) failed, $($tally.Skipped) skipped")
    exit ($tally.Failed -eq 0 ? 0 : 1)
}
