# ./build.sh Bench NAME: bench/NAME inside a lab; its figures go to artifacts/bench/NAME.json.

function Invoke-Bench([string[]] $Arguments) {
    $names = @([IO.Directory]::GetDirectories((Get-Path bench)) | ForEach-Object { [IO.Path]::GetFileName($_) } | Where-Object { $_ -notin 'FCtrans.Bench', 'bin', 'obj' })
    [Array]::Sort($names, [StringComparer]::Ordinal)
    $name, $more = $Arguments
    if (-not $name -or $names -notcontains $name) {
        throw "Say which benchmark: ./build.sh Bench NAME. The benchmarks are: $($names -join ', ')."
    }

    Install-DebianPackage (@($packagesToBuild.Keys) + @($packagesToRun.Keys))
    Invoke-Build
    # Its guest runs a server of Debian's; there is no network inside the lab to fetch it.
    if ($name -eq 'paging') { Invoke-Program 'Preparing the guests' @([IO.Path]::Combine($root, 'Tests', 'Lab', 'prepare'), 'server') }
    $report = Get-Path artifacts bench "$name.json"
    $null = [IO.Directory]::CreateDirectory([IO.Path]::GetDirectoryName($report))
    if ([IO.File]::Exists($report)) { [IO.File]::Delete($report) }
    $script = Get-Path bench $name "$name.ps1"
    if ([IO.File]::Exists($script)) {
        Invoke-InLab "The benchmark $name" (@((Get-PowerShellPath), '-NoProfile', '-NonInteractive', '-File', $script, '-Output', $report) + @($more | Where-Object { $_ }))
    }
    else {
        Invoke-InLab "The benchmark $name" (@('dotnet', (Get-Path bench FCtrans.Bench bin $configuration net10.0 FCtrans.Bench.dll), $name, '--output', $report) + @($more | Where-Object { $_ }))
    }

    if (-not [IO.File]::Exists($report)) { throw "The benchmark $name wrote no $report." }
    Say "Written: $report"
}
