# Dot-sourced in BeforeAll by the files in Cmdlets: one lab that stands for all of them, and what they have in common to ask.
#
# Hosts: source (runs the VMs shared, private and, until it is split, paged), one and two (nothing runs there: for what is done to a
# host), tiny (with next to no memory), main, sub and sub2 (for the split VM paged). Whoever changes something puts it back.

. ([IO.Path]::Combine($PSScriptRoot, 'LabFixture.ps1')) -KeepStandingLab

if (-not $global:FCtransStandingLab) {
    $standing = @{ Lab = New-Lab; Host = [ordered] @{}; Guest = @{}; Split = $null; BeforeSplit = $null; Second = $null }
    foreach ($entry in @('source', 1GB), @('main', 1GB), @('sub', 1GB), @('sub2', 1GB), @('one', 256MB), @('two', 256MB), @('tiny', 32MB)) {
        $standing.Host[$entry[0]] = New-LabHost -Name $entry[0] -ShmSize $entry[1]
    }

    $standing.Guest.shared = Start-LabGuest -LabHost $standing.Host.source -Name shared -Memory 256MB
    $standing.Guest.private = Start-LabGuest -LabHost $standing.Host.source -Name private -Memory 256MB -PrivateMemory
    $global:FCtransStandingLab = $standing
}

$lab = $global:FCtransStandingLab.Lab
$labHost = $global:FCtransStandingLab.Host
$ours = @{ KeyFile = $lab.KeyPath; KnownHostsFile = $lab.KnownHostsPath }

<# Connects the standing hosts that are named, by these names, and nothing else is connected then; gives the connections by name. #>
function Connect-StandingHost([string[]] $Name) {
    foreach ($connected in Get-KvmHost) { if ($connected.Name -notin $Name) { Disconnect-KvmHost $connected } }
    $connections = @{}
    foreach ($one in $Name) {
        $connections[$one] = @(Get-KvmHost | Where-Object Name -EQ $one)[0]
        if (-not $connections[$one]) { $connections[$one] = Connect-KvmHost $labHost[$one].Address @ours -Name $one }
    }

    $connections
}

<# The VM paged, split over main, sub and sub2 by the first file that needs it. Its result; source, main, sub and sub2 are connected. #>
function Get-StandingSplit {
    $null = Connect-StandingHost source, main, sub, sub2
    $standing = $global:FCtransStandingLab
    if (-not $standing.Split) {
        $guest = Start-LabGuest -LabHost $standing.Host.source -Name paged -Memory 256MB
        $null = Invoke-LabGuest -Guest $guest -Command 'fill 64'
        $null = Invoke-LabGuest -Guest $guest -Command 'run rate=2 threads=1 pace=64'
        $standing.BeforeSplit = Get-KvmVm paged -KvmHost source
        $standing.Split = Start-SplitMigration paged -MainHost main -SubHost sub, sub2 -MainMemory 64MB
        Move-LabGuestConsole -Guest $guest -LabHost $standing.Host.main
        $standing.Guest.paged = $guest
    }

    $standing.Split
}

<# What Tab would offer at the end of the line, sorted. #>
function Get-Completion([string] $Line) {
    $texts = [string[]] @([Management.Automation.CommandCompletion]::CompleteInput($Line, $Line.Length, $null).CompletionMatches.ListItemText)
    [Array]::Sort($texts, [StringComparer]::Ordinal)
    $texts
}

<# Each object is of a type that the cmdlet says it gives, has a table and a list, and every figure of them can be shown. #>
function Assert-Output([string] $Cmdlet, [object[]] $Object) {
    $Object.Count | Should -BeGreaterThan 0
    $types = @((Get-Command $Cmdlet).OutputType.Type)
    foreach ($item in $Object) {
        $types | Should -Contain $item.PSObject.BaseObject.GetType()
        $type = $item.PSObject.TypeNames[0]
        if ($type -notlike 'FCtrans.*' -or $type -like 'FCtrans.Commands.*') { continue }
        foreach ($path in [IO.Directory]::GetFiles([IO.Path]::Combine($root, 'out', 'FCtrans'), '*.Format.ps1xml')) {
            $views = [Xml.XmlDocument]::new()
            $views.Load($path)
            foreach ($script in $views.SelectNodes("//View[ViewSelectedBy/TypeName='$type']//ScriptBlock")) {
                $shown = [scriptblock]::Create('param($_) ' + $script.InnerText).InvokeReturnAsIs($item)
                if ($shown -is [string] -and $shown -match 'System\.|FCtrans\.') { throw "$type is shown as '$shown' by: $($script.InnerText)" }
            }
        }
    }
}

<# An error has this id, this category and this target. #>
function Assert-Failure($Record, [string] $Id, [string] $Category, $Target) {
    $Record.FullyQualifiedErrorId | Should -BeLike "$Id,*"
    "$($Record.CategoryInfo.Category)" | Should -Be $Category
    "$($Record.TargetObject)" | Should -Be "$Target"
    $Record.Exception.Message | Should -Match '\.$'
}

<# The cmdlet in a pipeline of its own in this process, as at another prompt, and begun. It shares the connections. #>
function Start-Cmdlet([string] $Name, [hashtable] $Parameter = @{}) {
    if (-not $global:FCtransStandingLab.Second) {
        $runspace = [runspacefactory]::CreateRunspace([Management.Automation.Runspaces.InitialSessionState]::CreateDefault2())
        $runspace.Open()
        $import = [powershell]::Create($runspace)
        $null = $import.AddCommand('Import-Module').AddParameter('Name', [IO.Path]::Combine($root, 'out', 'FCtrans', 'FCtrans.psd1')).Invoke()
        $import.Dispose()
        $global:FCtransStandingLab.Second = $runspace
    }

    $shell = [powershell]::Create($global:FCtransStandingLab.Second)
    $null = $shell.AddScript('param($______name, $______parameter) "begun"; & $______name @______parameter').AddArgument($Name).AddArgument($Parameter)
    $output = [Management.Automation.PSDataCollection[psobject]]::new()
    $begin = [powershell].GetMethods() | Where-Object { $_.Name -eq 'BeginInvoke' -and $_.GetParameters().Count -eq 2 } | ForEach-Object { $_.MakeGenericMethod([psobject], [psobject]) }
    $input = [Management.Automation.PSDataCollection[psobject]]::new()
    $input.Complete()
    $null = $begin.Invoke($shell, @($input, $output))
    Wait-Until { $output.Count -gt 0 -or $shell.InvocationStateInfo.State -ne 'Running' } "$Name begins"
    [pscustomobject] @{ Shell = $shell; Output = $output }
}

<# A PowerShell of its own whose output goes into a pipe, and that has connected to a standing host of ours, runs a script; its lines up to the one that is looked for. #>
function Read-Redirected([string] $HostName, [string] $Script, [string] $Until) {
    $address = $labHost[$HostName].Address
    $start = [Diagnostics.ProcessStartInfo]::new([Environment]::ProcessPath)
    $whole = "Import-Module '$root/out/FCtrans/FCtrans.psd1'; `$null = Connect-KvmHost '$address' -KeyFile '$($lab.KeyPath)' -KnownHostsFile '$($lab.KnownHostsPath)' -Name $HostName; $Script"
    foreach ($argument in '-NoProfile', '-NonInteractive', '-Command', $whole) { $start.ArgumentList.Add($argument) }
    $start.RedirectStandardOutput = $true
    $process = [Diagnostics.Process]::Start($start)
    $lines = [Collections.Generic.List[string]]::new()
    try {
        do {
            $line = $process.StandardOutput.ReadLineAsync()
            if (-not $line.Wait(60000)) { throw "Nothing came for 60 s after: $($lines -join "`n")" }
            if ($null -eq $line.Result) { throw "It ended with: $($lines -join "`n")" }
            $lines.Add($line.Result)
        } until ($line.Result -match $Until)
        $process.HasExited | Should -BeFalse
    }
    finally {
        if (-not $process.HasExited) { $process.Kill() }
        $process.WaitForExit()
    }

    $lines
}

<# Ctrl+C: the cmdlet ends at once, and as stopped. #>
function Stop-Cmdlet($Started) {
    try {
        $Started.Shell.Stop()
        "$($Started.Shell.InvocationStateInfo.State)" | Should -Be 'Stopped'
        $Started.Shell.Streams.Error | Should -HaveCount 0
    }
    finally { $Started.Shell.Dispose() }
}

<# Of progress, every line that was begun was ended, those below another before that; a console would keep them. #>
function Assert-ProgressEnded([object[]] $Record) {
    @($Record).Count | Should -BeGreaterThan 1
    $open = [Collections.Generic.Dictionary[int, int]]::new()
    foreach ($one in $Record) {
        if ("$($one.RecordType)" -eq 'Completed') {
            $open.ContainsKey($one.ActivityId) | Should -BeTrue
            $null = $open.Remove($one.ActivityId)
            @($open.Values | Where-Object { $_ -eq $one.ActivityId }) | Should -HaveCount 0
        }
        else { $open[$one.ActivityId] = $one.ParentActivityId }
    }

    $open.Count | Should -Be 0
}

<# The agent of a host stands still, so that whoever asks it waits. #>
function Suspend-Agent([string] $Name) { $null = Invoke-OnHost $labHost[$Name] 'pkill -STOP -f "fctrans-agent[ ]stdio"' }
function Resume-Agent([string] $Name) { $null = Invoke-OnHost $labHost[$Name] 'pkill -CONT -f "fctrans-agent[ ]stdio"' }

<# A cmdlet that waits for a host that does not answer ends at Ctrl+C, and the connection is of use afterwards. #>
function Assert-StopsWhileWaiting([string] $SilentHost, [string] $Name, [hashtable] $Parameter, [string] $KnownAs = $SilentHost) {
    Suspend-Agent $SilentHost
    try { Stop-Cmdlet (Start-Cmdlet $Name $Parameter) }
    finally { Resume-Agent $SilentHost }
    (Get-KvmHost $KnownAs -ErrorAction Stop).IsConnected | Should -BeTrue
}
