# For benchmarks written as scripts: hands measured figures to FCtrans.Bench, the one writer of reports.

<#
.SYNOPSIS
Writes artifacts/bench/NAME.json and prints the figures as a table.

.PARAMETER Figure
Tables with Name, Unit, Samples (numbers, one a run) and, for a figure with a target, Comparison (atMost or atLeast) and Target.
#>
function Write-BenchReport {
    param(
        [Parameter(Mandatory)] [string] $Name,
        [Parameter(Mandatory)] [string] $Output,
        [Parameter(Mandatory)] [Collections.IDictionary[]] $Figure
    )

    $program = [IO.Path]::Combine($PSScriptRoot, 'FCtrans.Bench', 'bin', 'Release', 'net10.0', 'FCtrans.Bench.dll')
    $lines = foreach ($entry in $Figure) {
        $fields = @($entry.Name, $entry.Unit, "$($entry['Comparison'])", "$($entry['Target'])") + @($entry.Samples | ForEach-Object { ([double] $_).ToString('R', [cultureinfo]::InvariantCulture) })
        $fields -join "`t"
    }

    # By hand: a pipe into a program takes a module that a bare engine does not have.
    $start = [Diagnostics.ProcessStartInfo]::new('dotnet')
    foreach ($argument in $program, 'report', $Name, '--output', $Output) { $start.ArgumentList.Add($argument) }
    $start.RedirectStandardInput = $true
    $process = [Diagnostics.Process]::Start($start)
    $process.StandardInput.Write(($lines -join "`n") + "`n")
    $process.StandardInput.Close()
    $process.WaitForExit()
    if ($process.ExitCode -ne 0) { throw "The report of '$Name' could not be written (exit status $($process.ExitCode))." }
}

Export-ModuleMember -Function Write-BenchReport
