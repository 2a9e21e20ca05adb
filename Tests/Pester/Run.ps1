<#
.SYNOPSIS
Runs the Pester files: with Pester 5 where it is installed, else with the small runner beside this script.

.PARAMETER Path
Test files, or folders whose *.Tests.ps1 are run. Default: this folder.

.PARAMETER Filter
Only tests whose full name contains this text.

.PARAMETER ResultFile
Where to write what happened, as JSON: { "tests": [ { "name", "outcome", "detail", "milliseconds", "file", "line" } ] }.
#>
param(
    [string[]] $Path = @($PSScriptRoot),
    [string] $Filter,
    [string[]] $Tag = @(),
    [string[]] $ExcludeTag = @(),
    [string] $ResultFile
)

# No strict mode and no error preference in here: tests would inherit them.
$files = @(foreach ($item in @($Path | ForEach-Object { $_ -split ',' })) {
        $full = [IO.Path]::GetFullPath($item)
        if ([IO.Directory]::Exists($full)) { [IO.Directory]::GetFiles($full, '*.Tests.ps1', 'AllDirectories') }
        elseif ([IO.File]::Exists($full)) { $full }
        else { throw "There is no test file or folder '$item'." }
    })
[Array]::Sort($files, [StringComparer]::Ordinal)
$pattern = $Filter ? @('*' + [Management.Automation.WildcardPattern]::Escape($Filter) + '*') : @()

$pester = @(Get-Module -ListAvailable -Name Pester -Verbose:$false | Where-Object { $_.Version.Major -ge 5 })
if ($pester.Count -gt 0) {
    Import-Module Pester -MinimumVersion 5.0
    $configuration = New-PesterConfiguration
    $configuration.Run.Path = $files
    $configuration.Run.PassThru = $true
    $configuration.Output.Verbosity = 'Detailed'
    if ($pattern) { $configuration.Filter.FullName = $pattern }
    if ($Tag) { $configuration.Filter.Tag = $Tag }
    if ($ExcludeTag) { $configuration.Filter.ExcludeTag = $ExcludeTag }
    $run = Invoke-Pester -Configuration $configuration
    $results = @(
        foreach ($test in @($run.Tests | Where-Object { $_.Result -ne 'NotRun' })) {
            [pscustomobject] @{
                Name = $test.ExpandedPath; Outcome = "$($test.Result)"; Milliseconds = $test.Duration.TotalMilliseconds
                Detail = @($test.ErrorRecord | ForEach-Object { "$($_.Exception.Message)`n$($_.ScriptStackTrace)" }) -join "`n"
                File = $test.ScriptBlock.File; Line = $test.StartLine
            }
        }
        foreach ($block in @(@($run.FailedBlocks) + @($run.FailedContainers) | Where-Object { $_ })) {
            [pscustomobject] @{
                Name = "$($block.Name ? $block.ExpandedPath : $block.Item) (set-up or teardown)"; Outcome = 'Failed'; Milliseconds = 0.0
                Detail = @($block.ErrorRecord | ForEach-Object { "$($_.Exception.Message)`n$($_.ScriptStackTrace)" }) -join "`n"; File = "$($block.Item)"; Line = 1
            }
        }
    )
}
else {
    Import-Module ([IO.Path]::Combine($PSScriptRoot, 'Runner', 'FCtrans.Pester.psm1')) -Force
    $results = @(Invoke-TestFile -Path $files -Scope {} -Tag $Tag -ExcludeTag $ExcludeTag -FullName $pattern)
}

if ($ResultFile) {
    $buffer = [IO.MemoryStream]::new()
    $writer = [Text.Json.Utf8JsonWriter]::new($buffer)
    $writer.WriteStartObject()
    $writer.WriteStartArray('tests')
    foreach ($result in $results) {
        $writer.WriteStartObject()
        $writer.WriteString('name', [string] $result.Name)
        $writer.WriteString('outcome', [string] $result.Outcome)
        $writer.WriteString('detail', [string] $result.Detail)
        $writer.WriteNumber('milliseconds', [double] $result.Milliseconds)
        $writer.WriteString('file', [string] $result.File)
        $writer.WriteNumber('line', [int] $result.Line)
        $writer.WriteEndObject()
    }

    $writer.WriteEndArray()
    $writer.WriteEndObject()
    $writer.Flush()
    [IO.File]::WriteAllBytes($ResultFile, $buffer.ToArray())
}

$passed = @($results | Where-Object { $_.Outcome -eq 'Passed' }).Count
$skipped = @($results | Where-Object { $_.Outcome -eq 'Skipped' }).Count
$failed = $results.Count - $passed - $skipped
$Host.UI.WriteLine('')
$Host.UI.WriteLine("Pester files: $passed passed, $failed failed, $skipped skipped")
if ($results.Count -eq 0 -and -not ($Filter -or $Tag -or $ExcludeTag)) {
    $Host.UI.WriteErrorLine('No test was found.')
    exit 1
}

exit ($failed -eq 0 ? 0 : 1)
