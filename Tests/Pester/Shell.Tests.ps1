# What scripts, CI and the lab rely on in the PowerShell that runs them: the same in pwsh and in our own shell.

BeforeAll {
    $powershell = [Environment]::ProcessPath

    # Own process, so that the streams are apart and a signal reaches this process only.
    function Start-Shell([string[]] $Arguments) {
        $start = [Diagnostics.ProcessStartInfo]::new($powershell)
        $start.RedirectStandardInput = $true
        $start.RedirectStandardOutput = $true
        $start.RedirectStandardError = $true
        foreach ($argument in @('-NoProfile', '-NonInteractive') + $Arguments) { $start.ArgumentList.Add($argument) }
        [Diagnostics.Process]::Start($start)
    }

    function Invoke-Shell([string[]] $Arguments, [string] $InputText = '') {
        $process = Start-Shell $Arguments
        $errors = $process.StandardError.ReadToEndAsync()
        $process.StandardInput.Write($InputText)
        $process.StandardInput.Close()
        $output = $process.StandardOutput.ReadToEnd()
        $process.WaitForExit()
        [pscustomobject] @{ Status = $process.ExitCode; Output = $output; Errors = $errors.Result }
    }

    $folder = [IO.Directory]::CreateTempSubdirectory('fctrans-shell-').FullName
    $script = [IO.Path]::Combine($folder, 'script.ps1')
    [IO.File]::WriteAllText($script, 'param($Name, [int] $Number, [switch] $Loud) "$Name|$Number|$Loud|$args"; exit $Number')
}

AfterAll { [IO.Directory]::Delete($folder, $true) }

Describe 'Exit status' {
    It 'of <command> is <status>' -ForEach @(
        @{ Command = '1 + 1'; Status = 0 }
        @{ Command = 'exit 7'; Status = 7 }
        @{ Command = 'throw "no"'; Status = 1 }
        @{ Command = '/bin/false'; Status = 1 }
        @{ Command = '/bin/true'; Status = 0 }
        @{ Command = 'Get-Module -Name x -NoSuchParameter'; Status = 1 }
        @{ Command = 'if ('; Status = 1 }
    ) { (Invoke-Shell '-Command', $command).Status | Should -Be $status }

    It "of a script is its exit's" { (Invoke-Shell '-File', $script, '-Number', '5').Status | Should -Be 5 }
    It 'of a script that ends in an error is 1' {
        $failing = [IO.Path]::Combine($folder, 'failing.ps1')
        [IO.File]::WriteAllText($failing, 'throw "no"')
        (Invoke-Shell '-File', $failing).Status | Should -Be 1
    }
    It 'of a script that is not there is not 0' { (Invoke-Shell '-File', '/no/such/script.ps1').Status | Should -Not -Be 0 }
}

Describe 'A script' {
    It 'gets its arguments' {
        (Invoke-Shell '-File', $script, 'a b', '-Number:0', '-Loud').Output.Trim() | Should -Be 'a b|0|True|'
        (Invoke-Shell '-File', $script, '-Name', 'x', '-Loud:$false').Output.Trim() | Should -Be 'x|0|False|'
    }
    It 'can come from standard input' { (Invoke-Shell @('-Command', '-') "'piped'`n").Output.Trim() | Should -Be 'piped' }
    It 'gets standard input as $input' { (Invoke-Shell @('-Command', '$input | ForEach-Object { "<$_>" }') "a`nb`n").Output.Trim() -replace "`r" | Should -Be "<a>`n<b>" }
}

Describe 'Output' {
    It 'formats objects as tables, without colours when nobody sees them' {
        $result = Invoke-Shell '-Command', '[pscustomobject] @{ Name = "a"; Size = 1 }'
        $result.Output.Trim() -split "\s*`n" | Should -Be @('Name Size', '---- ----', 'a       1')
    }
    It 'keeps errors apart' {
        $result = Invoke-Shell '-Command', '"fine"; throw "not fine"'
        $result.Output.Trim() | Should -Be 'fine'
        $result.Errors | Should -Match 'not fine'
    }
    It 'says what is wrong with a command that does not parse' { (Invoke-Shell '-Command', 'if (').Errors | Should -Match 'ParserError' }
    It 'shows no progress where there is no terminal' {
        $result = Invoke-Shell '-Command', 'function f { [CmdletBinding()] param() $PSCmdlet.WriteProgress([Management.Automation.ProgressRecord]::new(1, "busy", "half")) }; f'
        $result.Errors | Should -BeNullOrEmpty
    }
}

Describe 'Confirmation' {
    BeforeAll { $function = 'function f { [CmdletBinding(SupportsShouldProcess, ConfirmImpact = "High")] param() if ($PSCmdlet.ShouldProcess("target")) { "done" } }; ' }

    It 'does not do it when nobody can be asked' {
        $result = Invoke-Shell '-Command', "$function f -ErrorAction Stop"
        $result.Output | Should -Not -Match 'done'
        $result.Errors | Should -Not -BeNullOrEmpty
    }
    It 'is given by -Confirm:$false' { (Invoke-Shell '-Command', "$function f -Confirm:`$false").Output.Trim() | Should -Be 'done' }
    It 'is not needed for -WhatIf' { (Invoke-Shell '-Command', "$function f -WhatIf").Output | Should -Match 'What if' }
}

Describe 'The interrupt signal' {
    It 'stops the pipeline, and lets it clean up' {
        $process = Start-Shell '-Command', 'try { [Console]::WriteLine("working"); while ($true) { $x = 1 } } finally { [Console]::WriteLine("cleaned up") }'
        $process.StandardOutput.ReadLine() | Should -Be 'working'
        & /bin/sh -c "kill -INT $($process.Id)"
        $ended = $process.WaitForExit(20000)
        if (-not $ended) { $process.Kill() }
        $ended | Should -BeTrue
        $process.StandardOutput.ReadToEnd().Trim() | Should -Be 'cleaned up'
        $process.ExitCode | Should -Not -Be 0
    }
}
