# Dot-sourced in BeforeAll: the modules under test and the helpers that the tests of whole migrations share.
#
# An enclosure has room for one lab. What the files in Cmdlets share (StandingLab.ps1) goes when a file comes that makes its own.
param([switch] $KeepStandingLab)

$root = [IO.Path]::GetFullPath([IO.Path]::Combine($PSScriptRoot, '..', '..'))
Import-Module ([IO.Path]::Combine($root, 'out', 'FCtrans.Lab', 'FCtrans.Lab.psd1'))
Import-Module ([IO.Path]::Combine($root, 'out', 'FCtrans', 'FCtrans.psd1'))

if (-not $KeepStandingLab -and $global:FCtransStandingLab) {
    $global:FCtransStandingLab = $null
    Disconnect-KvmHost *
    Remove-Lab
}

<# Makes a lab with the hosts named and connects to each; returns both by name. #>
function New-ConnectedLab([string[]] $Name) {
    $lab = New-Lab
    $result = @{ Lab = $lab; Host = @{}; Connection = @{} }
    foreach ($hostName in $Name) {
        $labHost = New-LabHost -Name $hostName
        $result.Host[$hostName] = $labHost
        $result.Connection[$hostName] = Connect-KvmHost -HostName $labHost.Address -KeyFile $lab.KeyPath -KnownHostsFile $lab.KnownHostsPath
    }

    $result
}

<# Takes the lab down. Its hosts are disconnected first: a connection to a host that is gone would be asked ever after. #>
function Remove-ConnectedLab {
    Disconnect-KvmHost *
    Remove-Lab
}

<# Runs a command on a lab host and returns what it printed; its failure is an error. #>
function Invoke-OnHost($LabHost, [string] $Command) {
    $result = Invoke-LabHost -LabHost $LabHost -Command $Command
    if ($result.ExitCode -ne 0) { throw "'$Command' on $($LabHost.Name): $($result.Error)" }
    $result.Output.Trim()
}

<# Polls until the condition holds; the only way in which these tests wait. #>
function Wait-Until([scriptblock] $Condition, [string] $What, [int] $TimeoutSeconds = 60) {
    $deadline = [DateTime]::UtcNow.AddSeconds($TimeoutSeconds)
    while (-not (& $Condition)) {
        if ([DateTime]::UtcNow -gt $deadline) { throw "Not within $TimeoutSeconds s: $What" }
        [void] [Threading.Thread]::CurrentThread.Join(20)
    }
}

<# Names the failure points of the workers that a host starts from now on. #>
function Set-FailurePoint($LabHost, [string] $Points) {
    [void] (Invoke-OnHost $LabHost "mkdir -p /run/fctrans && chmod 700 /run/fctrans && rm -f /run/fctrans/*.reached /run/fctrans/*.go && printf '%s' '$Points' >/run/fctrans/failure-points")
}

function Clear-FailurePoint($LabHost) {
    [void] (Invoke-OnHost $LabHost 'rm -f /run/fctrans/failure-points /run/fctrans/*.reached /run/fctrans/*.go')
}

<# How long the workers that a host starts from now on wait for others, by name and in seconds. #>
function Set-Patience($LabHost, [string] $List) {
    [void] (Invoke-OnHost $LabHost "mkdir -p /run/fctrans && chmod 700 /run/fctrans && printf '%s' '$List' >/run/fctrans/patience")
}

function Wait-FailurePoint($LabHost, [string] $Name) {
    Wait-Until { [IO.File]::Exists($LabHost.PathOf("/run/fctrans/$Name.reached")) } "$($LabHost.Name) reaches $Name"
}

function Resume-FailurePoint($LabHost, [string] $Name) {
    [void] (Invoke-OnHost $LabHost "touch /run/fctrans/$Name.go")
}

<# What a split has left on a host: processes, RAM files, stores, sockets. Empty when there is nothing. #>
function Get-LeftOver($LabHost) {
    Invoke-OnHost $LabHost 'ls -d /dev/shm/fctrans-* 2>/dev/null; ls -d /run/fctrans/*/main /run/fctrans/*/sub 2>/dev/null; pgrep -f "qemu-system.*[f]ctrans-" ; true'
}

<# Kills the worker of a role as the kernel would, and returns its process id. #>
function Stop-Worker($LabHost, [string] $Role) {
    Invoke-OnHost $LabHost "pid=`$(cat /run/fctrans/*/$Role/worker.pid) && kill -9 `$pid && echo `$pid"
}
