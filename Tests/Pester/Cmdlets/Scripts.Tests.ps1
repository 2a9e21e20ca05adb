# What scripts rely on: which errors end them, their exit status, what -Verbose and -Debug say; and the sample script. docs/howto/scripts.md says it.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $null = Connect-StandingHost source, one, tiny
    $place = [IO.Directory]::CreateTempSubdirectory('scripts-').FullName
    $import = "Import-Module '$([IO.Path]::Combine($root, 'out', 'FCtrans', 'FCtrans.psd1'))'`n"
    $connect = @($labHost.Keys | ForEach-Object { "'$_' = '$($labHost[$_].Address)'" }) -join '; '
    $connect = "`$addresses = @{ $connect }; function Connect(`$Name) { Connect-KvmHost `$addresses[`$Name] -Name `$Name -KeyFile '$($lab.KeyPath)' -KnownHostsFile '$($lab.KnownHostsPath)' }`n"
    $sample = [IO.Path]::Combine($root, 'docs', 'samples', 'evacuate-host.ps1')

    <# Runs a script as cron would: a process, a file, nobody there. What it wrote, and its exit status. #>
    function Invoke-Script([string] $Text) {
        $path = [IO.Path]::Combine($place, 'script.ps1')
        # What ends it is told by its id: a message is laid out for who reads it.
        [IO.File]::WriteAllText($path, "trap { `"ended by `$(`$_.FullyQualifiedErrorId)`"; break }`n" + $import + $connect + $Text)
        $said = @(& ([Environment]::ProcessPath) -NoProfile -NonInteractive -File $path 2>&1)
        [pscustomobject] @{ Status = $LASTEXITCODE; Said = $said -join "`n" }
    }
}

AfterAll {
    [IO.Directory]::Delete($place, $true)
}

Describe 'A script' {
    It 'goes on after an error about an item, and sees it in $? and in -ErrorVariable' {
        $run = Invoke-Script @'
Get-SplitMigration -ErrorAction SilentlyContinue -ErrorVariable failures
"one $? $($failures[0].FullyQualifiedErrorId)"
Test-KvmHost nowhere
"two $? $($Error[0].FullyQualifiedErrorId)"
Wait-SplitMigration web* -ErrorAction Ignore
'three'
'@
        $run.Said | Should -Match 'one False NoHostConnected,'
        $run.Said | Should -Match 'two False HostNotConnected,'
        $run.Said | Should -Match 'three'
        $run.Status | Should -Be 0
    }

    It 'ends with status 1 at <What>' -ForEach @(
        @{ What = 'such an error with -ErrorAction Stop'; Text = "Get-KvmVm nobody -ErrorAction Stop`n'went on'"; Id = 'NoHostConnected' }
        @{ What = 'such an error with $ErrorActionPreference'; Text = "`$ErrorActionPreference = 'Stop'`nTest-KvmHost nowhere`n'went on'"; Id = 'HostNotConnected' }
    ) {
        $run = Invoke-Script $Text
        $run.Said | Should -Match "(?m)^ended by $Id,FCtrans\.Commands\.\w+$"
        $run.Said | Should -Not -Match 'went on'
        $run.Status | Should -Be 1
    }

    It 'is not led to believe that a VM was moved: Start-SplitMigration ends what it is in, and can be caught' {
        $run = Invoke-Script @'
try { Start-SplitMigration nobody -MainHost kvm2 -SubHost kvm3 -MainMemory 1GB; 'went on' }
catch { "caught $($_.FullyQualifiedErrorId) $($_.CategoryInfo.Category) $($_.TargetObject)"; exit 3 }
'@
        $run.Said | Should -Match 'caught NoHostConnected,FCtrans\.Commands\.StartSplitMigrationCommand \w+ nobody'
        $run.Said | Should -Not -Match 'went on'
        $run.Status | Should -Be 3
    }
}

Describe '-Confirm' {
    BeforeAll {
        $null = Get-StandingSplit
        $null = Connect-StandingHost source, main, sub, sub2, one, tiny
    }

    It 'asks before <Name> changes anything, and where nobody can be asked nothing is changed' -ForEach @(
        @{ Name = 'Add-VmSubHost'; Parameter = @{ VM = 'paged'; SubHost = 'one' } }
        @{ Name = 'Connect-KvmHost'; Parameter = @{ HostName = '192.0.2.1' } }
        @{ Name = 'Disconnect-KvmHost'; Parameter = @{ KvmHost = 'one' } }
        @{ Name = 'Export-SplitMigrationReport'; Parameter = @{ VM = 'paged'; Path = '/nowhere/report.html' } }
        @{ Name = 'Optimize-VmMemory'; Parameter = @{ VM = 'shared' } }
        @{ Name = 'Remove-VmSubHost'; Parameter = @{ VM = 'paged'; SubHost = 'sub' } }
        @{ Name = 'Set-VmRemotePaging'; Parameter = @{ VM = 'paged'; MainMemory = '40MB' } }
        @{ Name = 'Start-SplitMigration'; Parameter = @{ VM = 'shared'; MainHost = 'one'; SubHost = 'tiny'; MainMemory = '90%' } }
        @{ Name = 'Uninstall-KvmHostAgent'; Parameter = @{ KvmHost = 'one' } }
    ) {
        $before = (Get-VmRemotePaging paged).LimitBytes
        $started = Start-Cmdlet $Name ($Parameter + @{ Confirm = $true })
        try {
            Wait-Until { "$($started.Shell.InvocationStateInfo.State)" -ne 'Running' } "$Name has ended"
            # No host program that could ask: PowerShell says so, in its own words.
            "$($started.Shell.Streams.Error)" | Should -Match 'prompt|interact'
        }
        finally { $started.Shell.Dispose() }
        $paging = Get-VmRemotePaging paged
        "$($paging.LimitBytes) $($paging.SubHostStates[0])" | Should -Be "$before serving"
        (Get-KvmHost one).IsConnected | Should -BeTrue
        (Get-KvmVm shared).State | Should -Be 'running'
        @(Get-SplitMigration).VM | Should -Be 'paged'
    }
}

Describe '-Verbose and -Debug' {
    It 'say what was asked of which host, and how long it took' {
        $said = @(Get-KvmVm shared -Verbose 4>&1 | Where-Object { $_ -is [Management.Automation.VerboseRecord] }) -join "`n"
        foreach ($name in 'source', 'one', 'tiny') { $said | Should -Match "(?m)^${name}: .+: [\d.,]+ (µs|ms|s)`$" }
        $said = @(Test-SplitMigration shared one tiny 90% -Verbose 4>&1 | Where-Object { $_ -is [Management.Automation.VerboseRecord] }) -join "`n"
        foreach ($name in 'source', 'one', 'tiny') { $said | Should -Match "(?m)^${name}: .+: [\d.,]+ (µs|ms|s)`$" }
    }

    It 'tell with -Debug what was asked again' {
        $all = @(Test-SplitMigration sh*, s* one tiny 90% -Verbose -Debug *>&1)
        $asked = @($all | Where-Object { $_ -is [Management.Automation.VerboseRecord] }) -join "`n"
        $again = @($all | Where-Object { $_ -is [Management.Automation.DebugRecord] }) -join "`n"
        $again | Should -Match "(?m)^source: .+: [\d.,]+ (µs|ms|s)`$"
        $what = [regex]::Match($again, '(?m)^source: .+(?=: )').Value
        $asked | Should -Match ([regex]::Escape($what))
    }

    It 'say nothing otherwise' {
        @(Get-KvmVm shared 4>&1 5>&1) | Should -HaveCount 1
    }
}

Describe 'Watch-VmRemotePaging on a terminal' {
    It 'draws on another screen, and leaves the first as it was at Ctrl+C' {
        $null = Get-StandingSplit
        $path = [IO.Path]::Combine($place, 'watch.ps1')
        [IO.File]::WriteAllText($path, "$import${connect}`$null = Connect main`nWatch-VmRemotePaging paged -Interval 0.1")
        $start = [Diagnostics.ProcessStartInfo]::new('script')
        foreach ($word in '-qefc', "'$([Environment]::ProcessPath)' -NoProfile -File '$path'", '/dev/null') { $start.ArgumentList.Add($word) }
        $start.RedirectStandardInput = $true
        $start.RedirectStandardOutput = $true
        $start.Environment['TERM'] = 'xterm'
        $process = [Diagnostics.Process]::Start($start)
        try {
            $drawn = [Text.StringBuilder]::new()
            $buffer = [char[]]::new(4096)
            $sent = $false
            while (($count = $process.StandardOutput.Read($buffer, 0, $buffer.Length)) -gt 0) {
                $null = $drawn.Append($buffer, 0, $count)
                if (-not $sent -and "$drawn".Contains('the guest waits')) {
                    $process.StandardInput.Write("$([char] 3)")
                    $process.StandardInput.Flush()
                    $sent = $true
                }
            }
        }
        finally {
            if (-not $process.WaitForExit(30000)) { $process.Kill($true) }
        }

        $screen = "$drawn" -replace "`e", '^'
        $screen | Should -Match '\^\[\?1049h\^\[\?25l'
        $screen | Should -Match 'paged \(paging\)'
        # Nothing is drawn after the way back.
        $screen | Should -Match '\^\[\?25h\^\[\?1049l(?![\s\S]*paged)'
    }
}

Describe 'The sample script evacuate-host.ps1' {
    BeforeAll {
        $begin = '$null = ''source'', ''one'', ''tiny'', ''two'' | ForEach-Object { Connect $_ }' + "`n"
        $source = "$begin& '$sample' -KvmHost source -To one, tiny -MainMemory"
    }

    It 'has an exit status for a host that is empty, one that is not, and a mistake, and leaves the PowerShell that runs it open' {
        # A status of before must not be taken for its own.
        $run = Invoke-Script "$begin`$LASTEXITCODE = 7; & '$sample' -KvmHost two -To one, tiny; `"went on after `$LASTEXITCODE`""
        "$($run.Status) $($run.Said)" | Should -Be '0 went on after 0'
        # The VM private can't be split, and of shared too little would stay on the main host: they stay, and that is said.
        $run = Invoke-Script "$source 1MB | ForEach-Object { `"`$(`$_.VM) `$(`$_.State) `$(`$_.Reason)`" }; `"went on after `$LASTEXITCODE`""
        $run.Said | Should -Match 'private Skipped .*share=on'
        $run.Said | Should -Match 'shared Failed '
        "$($run.Status) $($run.Said)" | Should -Match '(?s)^0 .*went on after 1$'
        (Invoke-Script "$source 1MB; exit `$LASTEXITCODE").Status | Should -Be 1
        $run = Invoke-Script "$begin& '$sample' -KvmHost source -To one"
        $run.Said | Should -Match '(?m)^ended by Give two or more target hosts'
        $run.Status | Should -Be 1
        (Get-KvmVm -KvmHost source -Name shared).State | Should -Be 'running'
    }

    It 'does not fail because of what stays when it is only to say what it would do' {
        $run = Invoke-Script "$source 95% -WhatIf | ForEach-Object { `"`$(`$_.VM) `$(`$_.State)`" }; exit `$LASTEXITCODE"
        $run.Said | Should -Match 'private Skipped'
        $run.Status | Should -Be 0
    }
}
