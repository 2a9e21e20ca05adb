<#
.SYNOPSIS
Empties a host: splits its VMs, one after the other, over other hosts.

.DESCRIPTION
For each VM of the host, the largest first, the main host is the one of the targets with the most room, and all others are its
sub-hosts. A VM that can't be split, or whose migration fails, runs on where it is; the others are moved all the same. Nothing is
asked. All hosts must be connected (Connect-KvmHost).

Returns an object for each VM: VM, State (Moved, Skipped, Failed), MainHost, Reason. The exit status ($LASTEXITCODE, or that of
`pwsh -File`) is 0 when the host is empty, else 1. With -WhatIf it is 0: nothing was to be moved.

.PARAMETER KvmHost
The name of the host to empty.

.PARAMETER To
The names of the hosts that take its VMs; two or more.

.PARAMETER MainMemory
How much of each VM's memory stays on its main host: a size or a percentage.

.EXAMPLE
./evacuate-host.ps1 -KvmHost kvm1 -To kvm2, kvm3, kvm4 -MainMemory 25% -WhatIf
#>
[CmdletBinding(SupportsShouldProcess)]
param(
    [Parameter(Mandatory, Position = 0)] [string] $KvmHost,
    [Parameter(Mandatory, Position = 1)] [string[]] $To,
    [string] $MainMemory = '25%'
)

Set-StrictMode -Version 3
$ErrorActionPreference = 'Stop'

function New-Result([string] $VM, [string] $State, [string] $MainHost, [string] $Reason) {
    [pscustomobject] @{ VM = $VM; State = $State; MainHost = $MainHost; Reason = $Reason }
}

if ($To.Count -lt 2 -or $To -contains $KvmHost) { throw 'Give two or more target hosts, and not the one that is to be emptied.' }

$vms = @(Get-KvmVm -KvmHost $KvmHost)
$order = [uint64[]] @($vms | ForEach-Object { $_.ResidentBytes })
[Array]::Sort($order, $vms)
[Array]::Reverse($vms)
$left = 0
foreach ($vm in $vms) {
    if (-not $vm.CanSplit) {
        $left++
        New-Result $vm.Name 'Skipped' '' (@($vm.Obstacles | ForEach-Object { "$($_.Reason) $($_.Remedy)" }) -join ' ')
        continue
    }

    # Asked anew for each VM: the one before has taken room.
    $main = $null
    foreach ($candidate in @(Get-KvmHost $To)) {
        if ($null -eq $main -or $candidate.RamDirectoryFreeBytes -gt $main.RamDirectoryFreeBytes) { $main = $candidate }
    }

    $subs = @($To | Where-Object { $_ -ne $main.Name })
    if (-not $PSCmdlet.ShouldProcess($vm.Name, "Split over $($main.Name) (main host) and $($subs -join ', ')")) { continue }
    try {
        $null = $vm | Start-SplitMigration -MainHost $main -SubHost $subs -MainMemory $MainMemory
        New-Result $vm.Name 'Moved' $main.Name ''
    }
    catch {
        $left++
        New-Result $vm.Name 'Failed' '' $_.Exception.Message
    }
}

# exit ends this script only: of an interactive pwsh that ran it, it sets $LASTEXITCODE. It is said in either case, lest an older one stay.
exit [int] ($left -gt 0 -and -not $WhatIfPreference)
