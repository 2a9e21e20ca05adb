# The examples of the help, the first migration of README and tutorial, and the sample script, run on hosts that have the names they use: kvm1 to kvm4, with the VM bigvm.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, 'LabFixture.ps1'))

    # What examples use of PowerShell's other modules, where those are not there (the shell of build.sh): enough to see that nothing fails.
    $missing = @('Format-List', 'Format-Table', 'Sort-Object', 'Select-Object', 'Out-File' | Where-Object { -not (Get-Command $_ -ErrorAction Ignore) })
    if ($missing -contains 'Format-List') { function Format-List { process { $_ } } }
    if ($missing -contains 'Format-Table') { function Format-Table { process { $_ } } }
    if ($missing -contains 'Sort-Object') { function Sort-Object { process { $_ } } }
    if ($missing -contains 'Select-Object') {
        function Select-Object { param([Parameter(ValueFromPipeline)] $InputObject, [int] $First, [int] $Last, [object[]] $Property, [string] $ExpandProperty) process { $InputObject } }
    }
    if ($missing -contains 'Out-File') { function Out-File { process { } } }
    # The file is nobody's here.
    function Import-Csv { [pscustomobject] @{ VM = 'bigvm'; MainHost = 'kvm2'; SubHost = 'kvm*'; MainMemory = '25%' } }

    # What goes on for ever is stopped, as by Ctrl+C, after two objects.
    function Limit-Output { begin { $count = 0 } process { $_; if (++$count -eq 2) { break } } }
    # Nobody is there who could type.
    function Read-Host { $secure = [Security.SecureString]::new(); $secure.AppendChar('x'); $secure }

    <# Runs a cmdlet's examples; only errors with these ids may come. #>
    function Invoke-Example([string] $Name, [string[]] $MayFailWith = @()) {
        Invoke-Code @((Get-Help $Name -Full).Examples.Example.Code) $MayFailWith
    }

    <# Each command of a page's blocks from a heading on, by itself. #>
    function Invoke-Page([string] $Page, [string] $Heading, [string[]] $MayFailWith = @()) {
        $text = [IO.File]::ReadAllText([IO.Path]::Combine($root, $Page))
        $at = $text.IndexOf("`n## $Heading`n")
        $at | Should -BeGreaterThan 0 -Because "$Page has a part '$Heading'"
        $blocks = @(foreach ($block in [regex]::Matches($text.Substring($at), '(?ms)^( *)```powershell\r?\n(.*?)^\1```')) { $block.Groups[2].Value }) -join "`n"
        $commands = @([Management.Automation.Language.Parser]::ParseInput($blocks, [ref] $null, [ref] $null).EndBlock.Statements | ForEach-Object { "$_" })
        $commands.Count | Should -BeGreaterThan 5
        Invoke-Code @($commands | Where-Object { $_ -notlike 'Import-Module *' }) $MayFailWith
    }

    function Invoke-Code([string[]] $Code, [string[]] $MayFailWith) {
        $failures = foreach ($text in $Code) {
            $raised = @()
            # In examples WhatIf stands for all that would move VMs or take hosts away; what only looks really runs. The example with a job of
            # Start-SplitMigration runs as it is in StartSplitMigration.Tests.ps1.
            $PSDefaultParameterValues = @{
                'Start-SplitMigration:WhatIf' = $true; 'Stop-SplitMigration:WhatIf' = $true; 'Uninstall-KvmHostAgent:WhatIf' = $true; 'Remove-VmSubHost:WhatIf' = $true; 'Add-VmSubHost:WhatIf' = $true
                'Watch-VmRemotePaging:Count' = 1; 'Watch-VmRemotePaging:Interval' = 1
            }
            $text = $text -replace ' -Interval \d+', ' -Interval 0.1' -replace ' -Count \d+' -replace ' -Confirm\b', ' -Confirm:$false' -replace 'Sleep\(5000\)', 'Sleep(50)'
            $text = $text.Replace('~/', "$place/")
            $text = $text -replace '(-Continuous[^|\n]*)', '$1 | Limit-Output '
            if ($text -match '^\$job = Start-SplitMigration') { $text = ($text -split "`n")[0] }
            try {
                do { $null = & ([scriptblock]::Create($text)) *>&1 | ForEach-Object { if ($_ -is [Management.Automation.ErrorRecord]) { $raised += $_ } } }
                while ($false)
            }
            catch { $raised += $_ }
            finally { foreach ($job in Get-Job) { Stop-Job $job; Remove-Job $job } }
            foreach ($record in $raised) {
                $id = $record.FullyQualifiedErrorId.Split(',')[0]
                if ($MayFailWith -notcontains $id) { "$text -> ${id}: $($record.Exception.Message)" }
            }
        }

        @($failures) -join "`n" | Should -BeNullOrEmpty
    }
}

Describe 'With hosts kvm1 to kvm4 and a VM bigvm' -Tag 'Vm' {
    BeforeAll {
        $lab = New-Lab
        $place = [IO.Path]::Combine([IO.Path]::GetTempPath(), "examples-$([guid]::NewGuid().ToString('N'))")
        $null = [IO.Directory]::CreateDirectory("$place/.ssh")
        $before = $env:HOME, [Environment]::CurrentDirectory, $PWD.Path
        $hosts = [ordered] @{}
        $config = foreach ($name in 'kvm1', 'kvm2', 'kvm3', 'kvm4') {
            $hosts[$name] = New-LabHost -Name $name
            "Host $name`n  HostName $($hosts[$name].Address)`n"
        }
        $config += "Host 192.0.2.11`n  HostName $($hosts.kvm1.Address)`nHost *`n  UserKnownHostsFile $($lab.KnownHostsPath)`n  IdentityFile $($lab.KeyPath)`n"
        [IO.File]::WriteAllText("$place/.ssh/config", $config -join '')
        [IO.File]::Copy($lab.KeyPath, "$place/.ssh/id_ed25519")
        $null = Invoke-OnHost $hosts.kvm1 "useradd -m -s /bin/sh -g users operator && echo 'operator ALL=(root) NOPASSWD: ALL' >/etc/sudoers.d/operator && sed -i 's/^operator:!/operator:*/' /etc/shadow"
        $guest = Start-LabGuest -LabHost $hosts.kvm1 -Name bigvm -Memory 512MB
        $null = Invoke-LabGuest -Guest $guest -Command 'fill 64'
        $null = Invoke-LabGuest -Guest $guest -Command 'run rate=1 threads=1 pace=64'
        $env:HOME = $place
        $null = $ExecutionContext.SessionState.Path.SetLocation($place)
        Connect-KvmHost kvm1, kvm2, kvm3, kvm4 | Should -HaveCount 4
    }

    AfterAll {
        $env:HOME = $before[0]
        $null = $ExecutionContext.SessionState.Path.SetLocation($before[2])
        Disconnect-KvmHost *
        Remove-Lab
        [IO.Directory]::Delete($place, $true)
    }

    It 'connects as the examples say' {
        Invoke-Example 'Connect-KvmHost'
        Disconnect-KvmHost *
        # DataAddress 10.10.0.4 is nobody's here.
        $null = Connect-KvmHost kvm1, kvm2, kvm3, kvm4
    }

    It 'runs the examples of <_> while the VM is on one host' -ForEach @('Get-KvmHost', 'Test-KvmHost', 'Get-KvmVm', 'Get-VmUnusedMemory', 'Get-VmMemoryMap', 'Show-VmMemoryMap', 'Optimize-VmMemory', 'Start-SplitMigration', 'Test-SplitMigration', 'Uninstall-KvmHostAgent') {
        Invoke-Example $_
    }

    It 'completes hosts and VMs' {
        foreach ($case in @{ Line = 'Get-KvmVm -KvmHost kvm'; Names = 'kvm1 kvm2 kvm3 kvm4' }, @{ Line = 'Start-SplitMigration -VM b'; Names = 'bigvm' }) {
            $matches = [Management.Automation.CommandCompletion]::CompleteInput($case.Line, $case.Line.Length, $null).CompletionMatches
            @($matches.ListItemText) -join ' ' | Should -Be $case.Names
        }
    }

    It 'empties a host by the sample script' {
        $script = [IO.Path]::Combine($root, 'docs', 'samples', 'evacuate-host.ps1')
        { & $script -KvmHost kvm1 -To kvm1, kvm2 } | Should -Throw
        & $script -KvmHost kvm1 -To kvm2, kvm3, kvm4 -WhatIf | Should -BeNullOrEmpty
        (Get-KvmVm -KvmHost kvm1).Name | Should -Be 'bigvm'
        $moved = & $script -KvmHost kvm1 -To kvm2, kvm3, kvm4
        "$($moved.VM) $($moved.State) $($moved.Reason)" | Should -Be 'bigvm Moved '
        Get-KvmVm -KvmHost kvm1 | Should -BeNullOrEmpty
        Move-LabGuestConsole -Guest $guest -LabHost $hosts[$moved.MainHost]
        (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
    }

    It 'runs the examples of <_> once the VM is split' -ForEach @('Get-SplitMigration', 'Get-VmUnusedMemory', 'Show-VmMemoryMap', 'Get-VmRemotePaging', 'Watch-VmRemotePaging', 'Set-VmRemotePaging', 'Add-VmSubHost', 'Remove-VmSubHost', 'Wait-SplitMigration', 'Export-SplitMigrationReport') {
        # One of them moves the VM again, which its new host is not to do.
        Invoke-Example $_ -MayFailWith 'MainHostIsSource'
    }

    It 'runs the first migration of <Page>' -ForEach @{ Page = 'README.md'; Heading = 'A first migration by hand' }, @{ Page = 'docs/tutorial.md'; Heading = 'On real hosts' } {
        # It has been moved already.
        Invoke-Page $Page $Heading -MayFailWith 'MainHostIsSource', 'VmCannotBeSplit'
    }

    It 'has nothing to stop any more' {
        Invoke-Example 'Stop-SplitMigration' -MayFailWith 'MigrationCommitted'
    }

    It 'gives an object for each interval of watching' {
        $samples = @(Watch-VmRemotePaging bigvm -Count 2 -AsObject)
        $samples | Should -HaveCount 2
        $samples[0].PSObject.TypeNames[0] | Should -Be 'FCtrans.VmRemotePagingSample'
        $samples[1].Time | Should -BeGreaterThan $samples[0].Time
        "$($samples[1].VM) $($samples[1].State)" | Should -Be 'bigvm paging'
        $samples[1].Seconds | Should -BeGreaterThan 0.5

        $samples = [Collections.Generic.List[object]]::new()
        do { Get-VmRemotePaging big* -Continuous -Interval 0.1 | ForEach-Object { $samples.Add($_); if ($samples.Count -eq 3) { break } } } while ($false)
        "$($samples[2].VM) $($samples[2].State)" | Should -Be 'bigvm paging'
        $samples[2].Time | Should -BeGreaterThan $samples[1].Time
        { Get-VmRemotePaging nobody -Continuous -ErrorAction Stop } | Should -Throw -ErrorId 'MigrationNotFound,*'
    }

    It 'refuses to remove the agent from hosts that the VM depends on' {
        foreach ($name in 'kvm2', 'kvm3', 'kvm4') {
            { Uninstall-KvmHostAgent $name -ErrorAction Stop } | Should -Throw -ErrorId 'AgentInUse,*' -ExpectedMessage "*'bigvm'*"
        }
    }

    It 'removes it from the source, records and all' {
        Uninstall-KvmHostAgent kvm1
        Invoke-OnHost $hosts.kvm1 'ls -d /run/fctrans /var/lib/fctrans 2>/dev/null; true' | Should -BeNullOrEmpty
    }

    It 'disconnects as the examples say' {
        $null = Connect-KvmHost kvm1
        Invoke-Example 'Disconnect-KvmHost'
    }
}
