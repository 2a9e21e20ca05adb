# ./build.sh Build: compile, publish the agent, make the help, and stage the module under out/FCtrans.

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
