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

function Say([string] $Text) { if (-not $Quiet) { $Host.UI.WriteLine($Text) } }

function Get-Path { [IO.Path]::Combine([string[]] (@($root) + $args)) }

<# Runs a program whose failure ends the build. -Silently shows its output only when it fails. #>
function Invoke-Program([string] $What, [string[]] $Command, [switch] $Silently) {
    $program, $arguments = $Command
    if ($Silently) {
        $lines = & $program @arguments 2>&1
        if ($LASTEXITCODE -ne 0) { $lines | ForEach-Object { $Host.UI.WriteErrorLine("$_") } }
    }
    else {
        & $program @arguments | Out-Host
    }

    if ($LASTEXITCODE -ne 0) { throw "$What failed (exit status $LASTEXITCODE of '$program')." }
}

#region What the machine must have

<# Debian package -> what it is needed for. Looked up by dpkg-query, so a second run asks no network. #>
$packagesToBuild = [ordered] @{
    'gcc'        = 'links the agent, compiles the ABI tests'
    'libc6-dev'  = 'links the agent'
    'zlib1g-dev' = 'links the agent'
}
$packagesToRun = [ordered] @{
    'binutils'         = 'assembles the bare guest'
    'busybox-static'   = "the lab guest's user space"
    'cpio'             = "packs the lab guest's initramfs"
    'iproute2'         = "the lab's network"
    'kmod'             = "the lab guest's modules and what they need"
    'libvirt-clients'  = "the lab hosts' virsh"
    'libvirt-daemon'   = "the lab hosts' libvirt"
    'libvirt-daemon-driver-qemu' = "the lab hosts' libvirt"
    'openssh-client'   = "the lab's keys"
    'openssh-server'   = "the lab hosts' sshd"
    'qemu-system-x86'  = 'the VMs'
    'sudo'             = 'a user of the lab hosts who is not root'
    'util-linux'       = "the lab's namespaces"
    'xz-utils'         = "unpacks the lab guest's kernel"
}

$packagesToTest = [ordered] @{
    'chromium' = 'looks at the reports'
}

function Install-DebianPackage([string[]] $Name) {
    if (-not (Get-Command dpkg-query -CommandType Application -ErrorAction Ignore)) {
        Say "This is not Debian: make sure that these are there: $($Name -join ', ')."
        return
    }

    $installed = & dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' 2>$null
    $missing = @($Name | Where-Object { $installed -notcontains "installed $_" })
    if ($missing.Count -eq 0) { return }
    if ([Environment]::UserName -ne 'root') {
        throw "These Debian packages are missing and only root can install them: apt-get install --no-install-recommends $($missing -join ' ')"
    }

    Say "Installing Debian packages: $($missing -join ', ')"
    # No daemon is to start (sshd): the lab runs its own. The machine's own policy, where there is one, stays.
    $policy = '/usr/sbin/policy-rc.d'
    $ours = -not [IO.File]::Exists($policy)
    $frontend = $env:DEBIAN_FRONTEND
    try {
        if ($ours) {
            [IO.File]::WriteAllText($policy, "#!/bin/sh`nexit 101`n")
            [IO.File]::SetUnixFileMode($policy, 'UserRead, UserWrite, UserExecute, GroupRead, GroupExecute, OtherRead, OtherExecute')
        }

        $env:DEBIAN_FRONTEND = 'noninteractive'
        Invoke-Program 'Reading the package lists' @('apt-get', '-q', 'update') -Silently
        Invoke-Program 'Installing packages' (@('apt-get', '-q', 'install', '-y', '--no-install-recommends') + $missing) -Silently
    }
    finally {
        $env:DEBIAN_FRONTEND = $frontend
        if ($ours) { [IO.File]::Delete($policy) }
    }
}

#endregion
#region Build

function Get-SourceFile {
    $skipped = 'bin', 'obj', 'out', 'artifacts', '.git', 'TestResults'
    $pending = [Collections.Generic.Stack[string]]::new()
    $pending.Push($root)
    while ($pending.Count -gt 0) {
        $directory = $pending.Pop()
        [IO.Directory]::GetFiles($directory)
        foreach ($child in [IO.Directory]::GetDirectories($directory)) {
            if ($skipped -notcontains [IO.Path]::GetFileName($child)) { $pending.Push($child) }
        }
    }
}

<# Says whether anything changed since the last build that succeeded: names, sizes and times of all sources. #>
function Get-SourceFingerprint([string[]] $File) {
    $text = [Text.StringBuilder]::new()
    $ordered = [string[]] @($File)
    [Array]::Sort($ordered, [StringComparer]::Ordinal)
    foreach ($path in $ordered) {
        $info = [IO.FileInfo]::new($path)
        if (-not $info.Exists) { continue }
        $null = $text.Append($path).Append(' ').Append($info.Length).Append(' ').Append($info.LastWriteTimeUtc.Ticks).Append("`n")
    }

    [Convert]::ToHexString([Security.Cryptography.SHA256]::HashData([Text.Encoding]::UTF8.GetBytes($text.ToString())))
}

<# One solution over all projects: one restore, and everything builds in parallel in the right order. #>
function New-Solution([string[]] $Project, [string] $Path) {
    $lines = @('<Solution>') + @($Project | ForEach-Object { "  <Project Path=""$_"" />" }) + @('</Solution>', '')
    $null = [IO.Directory]::CreateDirectory([IO.Path]::GetDirectoryName($Path))
    $text = $lines -join "`n"
    if (-not [IO.File]::Exists($Path) -or [IO.File]::ReadAllText($Path) -ne $text) { [IO.File]::WriteAllText($Path, $text) }
}

<# Makes Destination hold exactly these files (relative path -> source). Each is replaced whole, by a rename: one that is in use keeps its content. #>
function Sync-Stage([Collections.IDictionary] $File, [string] $Destination) {
    $null = [IO.Directory]::CreateDirectory($Destination)
    foreach ($relative in @($File.Keys)) {
        $source = $File[$relative]
        $to = [IO.Path]::Combine($Destination, $relative)
        $null = [IO.Directory]::CreateDirectory([IO.Path]::GetDirectoryName($to))
        if ([IO.File]::Exists($to) -and [IO.FileInfo]::new($to).Length -eq [IO.FileInfo]::new($source).Length -and
            [IO.File]::GetLastWriteTimeUtc($to) -eq [IO.File]::GetLastWriteTimeUtc($source)) { continue }
        $temporary = "$to.new$PID"
        [IO.File]::Copy($source, $temporary, $true)
        [IO.File]::SetLastWriteTimeUtc($temporary, [IO.File]::GetLastWriteTimeUtc($source))
        [IO.File]::Move($temporary, $to, $true)
    }

    foreach ($path in [IO.Directory]::GetFiles($Destination, '*', 'AllDirectories')) {
        if (-not $File.Contains([IO.Path]::GetRelativePath($Destination, $path))) { [IO.File]::Delete($path) }
    }
}

<# Adds a directory's files to a stage, below a folder of it. #>
function Add-ToStage([Collections.IDictionary] $File, [string] $Directory, [string] $Below = '') {
    foreach ($path in [IO.Directory]::GetFiles($Directory, '*', 'AllDirectories')) {
        if ($path.EndsWith('.pdb') -or $path.EndsWith('.dbg')) { continue }
        $File[[IO.Path]::Combine($Below, [IO.Path]::GetRelativePath($Directory, $path))] = $path
    }
}

function Publish-Project([string] $Project, [string] $Directory, [string[]] $Options = @()) {
    if ([IO.Directory]::Exists($Directory)) { [IO.Directory]::Delete($Directory, $true) }
    Invoke-Program "Publishing $Project" (@('dotnet', 'publish', $Project, '-c', $configuration, '-o', $Directory, '-v', 'quiet', '-clp:NoSummary') + $Options) -Silently:$Quiet
}

<# What Get-Help shows, and docs/reference. Made in a process of its own: this one would keep the cmdlets loaded. #>
function New-Help([string] $Module, [string] $Directory) {
    $culture = [IO.Path]::Combine($Directory, 'en-US')
    $null = [IO.Directory]::CreateDirectory($culture)
    $problems = & (Get-PowerShellPath) -NoProfile -NonInteractive -File (Get-Path Cmdlets Help Update-Help.ps1) -ModulePath $Module `
        -Documentation (Get-Path Cmdlets bin $configuration net8.0 FCtrans.Cmdlets.xml) -Output $culture -Reference (Get-Path docs reference)
    if ($LASTEXITCODE -ne 0) { throw "Making the help failed: $problems" }

    # A cmdlet that is being written may have no help yet; the tests are what insists.
    foreach ($problem in $problems) { Say "Build: help: $problem" }
    foreach ($path in [IO.Directory]::GetFiles((Get-Path Cmdlets Help), '*.help.txt')) {
        [IO.File]::Copy($path, [IO.Path]::Combine($culture, [IO.Path]::GetFileName($path)), $true)
    }
}

function Invoke-Build {
    Install-DebianPackage @($packagesToBuild.Keys)

    # The reference pages are made from the others.
    $made = (Get-Path docs reference) + [IO.Path]::DirectorySeparatorChar
    $sources = @(Get-SourceFile | Where-Object { -not $_.StartsWith($made) })
    $fingerprint = Get-SourceFingerprint $sources
    $stamp = Get-Path artifacts build.stamp
    if ([IO.File]::Exists($stamp) -and [IO.File]::ReadAllText($stamp) -eq $fingerprint -and [IO.Directory]::Exists((Get-Path out FCtrans))) {
        Say 'Build: up to date.'
        return
    }

    if ([IO.File]::Exists($stamp)) { [IO.File]::Delete($stamp) }

    # The shell is build.sh's business: it may be what runs this script.
    $projects = @($sources | Where-Object { $_.EndsWith('.csproj') -and -not $_.EndsWith('FCtrans.Shell.csproj') })
    [Array]::Sort($projects, [StringComparer]::Ordinal)
    $solution = Get-Path artifacts obj FCtrans.slnx
    New-Solution $projects $solution
    Say 'Build: compiling'
    Invoke-Program 'Compiling' @('dotnet', 'build', $solution, '-c', $configuration, '-v', 'quiet', '-clp:NoSummary') -Silently:$Quiet

    Say 'Build: publishing the agent'
    $agent = Get-Path artifacts publish agent
    Publish-Project (Get-Path NativeAgent FCtrans.Agent.csproj) $agent @('-r', 'linux-x64')

    $stage = [ordered] @{}
    $cmdlets = Get-Path Cmdlets FCtrans.Cmdlets.csproj
    if ([IO.File]::Exists($cmdlets)) {
        Say 'Build: staging the module'
        $published = Get-Path artifacts publish cmdlets
        Publish-Project $cmdlets $published @('--no-build')
        Add-ToStage $stage $published
        $stage['FCtrans.psd1'] = Get-Path FCtrans.psd1
        $help = Get-Path artifacts publish help
        New-Help ([IO.Path]::Combine($published, 'FCtrans.psm1')) $help
        Add-ToStage $stage $help
    }

    $stage['agent/linux-x64/fctrans-agent'] = [IO.Path]::Combine($agent, 'fctrans-agent')
    $stage['LICENSE'] = Get-Path LICENSE
    Sync-Stage $stage (Get-Path out FCtrans)

    $lab = Get-Path Tests Lab FCtrans.Lab.csproj
    if ([IO.File]::Exists($lab)) {
        Say 'Build: staging the lab'
        $published = Get-Path artifacts publish lab
        Publish-Project $lab $published @('--no-build')
        $stage = [ordered] @{}
        Add-ToStage $stage $published
        Sync-Stage $stage (Get-Path out FCtrans.Lab)
    }

    [IO.File]::WriteAllText($stamp, $fingerprint)
    Say 'Build: done, out/FCtrans'
}

#endregion
#region Test

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

<# A lab enclosure around what makes hosts: everything it starts dies with it. #>
function Get-LabCommand([string[]] $Command) { @($enterLab) + $Command }

function Get-PowerShellPath {
    $path = [Environment]::ProcessPath
    if ([IO.Path]::GetFileNameWithoutExtension($path) -eq 'dotnet') { 'pwsh' } else { $path }
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

function Invoke-XunitSuite([string] $Suite, [string] $Project, [string] $Results) {
    $name = [IO.Path]::GetFileNameWithoutExtension($Project)
    $assembly = [IO.Path]::Combine([IO.Path]::GetDirectoryName($Project), 'bin', $configuration, 'net10.0', "$name.dll")
    $trx = [IO.Path]::Combine($Results, "$Suite.trx")
    $command = @('dotnet', 'test', $assembly, '--logger', "trx;LogFileName=$Suite.trx", '--logger', 'console;verbosity=quiet', '--results-directory', $Results)
    if ($Filter) { $command += @('--filter', "FullyQualifiedName~$Filter") }
    $command += @('--', 'RunConfiguration.TestSessionTimeout=600000')
    if ($Suite -eq 'Kernel') {
        # It looks at machines of both QEMUs that are supported.
        & ([IO.Path]::Combine($root, 'Tests', 'Lab', 'prepare')) qemu-10.0
    }
    elseif ($Suite -eq 'Vm') {
        # Its guests run three kernels; there is no network inside the lab to fetch them.
        & ([IO.Path]::Combine($root, 'Tests', 'Lab', 'prepare')) kernel-6.1 kernel-6.12 kernel-6.12-generic kexec
        $command = Get-LabCommand $command
    }

    $program, $arguments = $command
    $watch = [Diagnostics.Stopwatch]::StartNew()
    $said = & $program @arguments 2>&1
    $status = $LASTEXITCODE
    $before = $tally.Failed
    $count = 0
    if ([IO.File]::Exists($trx)) {
        $document = [Xml.XmlDocument]::new()
        $document.Load($trx)
        $names = [Xml.XmlNamespaceManager]::new($document.NameTable)
        $names.AddNamespace('t', 'http://microsoft.com/schemas/VisualStudio/TeamTest/2010')
        foreach ($result in $document.SelectNodes('//t:UnitTestResult', $names)) {
            $count++
            $message = $result.SelectSingleNode('t:Output/t:ErrorInfo/t:Message', $names)
            $trace = $result.SelectSingleNode('t:Output/t:ErrorInfo/t:StackTrace', $names)
            $test = $result.GetAttribute('testName')
            switch ($result.GetAttribute('outcome')) {
                'Passed' { $tally.Passed++ }
                'NotExecuted' { Add-Skip $Suite $test ($message ? $message.InnerText : '') }
                default { Add-Failure $Suite $test "$($message ? $message.InnerText : $_)`n$($trace ? $trace.InnerText : '')" }
            }
        }
    }

    if ($status -ne 0 -and $tally.Failed -eq $before) {
        Add-Failure $Suite 'the test program ended abnormally' "exit status $status`n$($said -join "`n")"
    }
    elseif ($count -eq 0 -and -not $Filter) {
        Add-Failure $Suite 'no test was found' "in $assembly"
    }

    $Host.UI.WriteLine("$count tests, $([int] $watch.Elapsed.TotalSeconds) s")
}

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

#endregion
#region Demo, Bench, Shell, Clean

function Invoke-InLab([string] $What, [string[]] $Command) {
    $program, $arguments = Get-LabCommand $Command
    & $program @arguments | Out-Host
    if ($LASTEXITCODE -ne 0) {
        $Host.UI.WriteErrorLine("$What failed (exit status $LASTEXITCODE).")
        exit $LASTEXITCODE
    }
}

function Invoke-Demo([string[]] $Arguments) {
    Install-DebianPackage (@($packagesToBuild.Keys) + @($packagesToRun.Keys))
    Invoke-Build
    Invoke-InLab 'The demo' (@((Get-PowerShellPath), '-NoProfile', '-NonInteractive', '-File', (Get-Path demo demo.ps1)) + $Arguments)
}

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

function Invoke-Clean {
    $trees = @($out)
    if ([IO.Directory]::Exists($artifacts)) {
        # The shell may be what runs this script; the cache is downloads.
        $trees += @([IO.Directory]::GetFileSystemEntries($artifacts) | Where-Object { [IO.Path]::GetFileName($_) -notin 'cache', 'shell', 'shell.lock' })
    }

    foreach ($project in @(Get-SourceFile | Where-Object { $_.EndsWith('.csproj') })) {
        $directory = [IO.Path]::GetDirectoryName($project)
        $trees += @([IO.Path]::Combine($directory, 'bin'), [IO.Path]::Combine($directory, 'obj'))
    }

    foreach ($path in $trees) {
        if ([IO.Directory]::Exists($path)) { [IO.Directory]::Delete($path, $true) }
        elseif ([IO.File]::Exists($path)) { [IO.File]::Delete($path) }
    }

    Say 'Clean: done.'
}

#endregion

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
