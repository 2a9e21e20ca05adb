# Holds our runner to Pester's meaning: what is asserted here is true in Pester 5 as well.

BeforeDiscovery {
    $atDiscovery = @('first', 'second')
}

BeforeAll {
    $fileVariable = 'from the file'
    function Get-FromFile { $fileVariable }

    function Invoke-Runner([string[]] $Arguments) {
        $powershell = [Environment]::ProcessPath
        $run = [IO.Path]::Combine($PSScriptRoot, 'Run.ps1')
        $report = [IO.Path]::Combine([IO.Path]::GetTempPath(), "fctrans-runner-$([guid]::NewGuid().ToString('N')).json")
        try {
            $said = & $powershell -NoProfile -NonInteractive -File $run @Arguments -ResultFile $report 2>&1
            $status = $LASTEXITCODE
            $tests = @{}
            if ([IO.File]::Exists($report)) {
                $document = [Text.Json.JsonDocument]::Parse([IO.File]::ReadAllText($report))
                foreach ($test in $document.RootElement.GetProperty('tests').EnumerateArray()) {
                    $tests[$test.GetProperty('name').GetString()] = [pscustomobject] @{
                        Outcome = $test.GetProperty('outcome').GetString(); Detail = $test.GetProperty('detail').GetString()
                    }
                }

                $document.Dispose()
            }

            [pscustomobject] @{ Status = $status; Tests = $tests; Said = $said -join "`n" }
        }
        finally { [IO.File]::Delete($report) }
    }
}

Describe 'Scopes' {
    BeforeAll { $blockVariable = 1 }

    It 'see the variables of BeforeAll' { $blockVariable | Should -Be 1 }
    It 'see the variables and functions of the file' { Get-FromFile | Should -Be 'from the file' }

    It 'keep a change to themselves' {
        $blockVariable = 2
        $blockVariable | Should -Be 2
    }

    It 'do not see what a sibling changed' { $blockVariable | Should -Be 1 }

    Context 'inside' {
        BeforeAll { $innerVariable = $blockVariable + 10 }

        It 'see the outer and the inner block' { $innerVariable | Should -Be 11 }
    }

    It 'do not see an inner block' { $innerVariable | Should -BeNullOrEmpty }
}

Describe 'Before and after each test' {
    BeforeAll { $log = [Collections.Generic.List[string]]::new() }
    BeforeEach { $log.Add('outer before'); $fresh = 1 }
    AfterEach { $log.Add('outer after') }

    It 'share the scope of the test' {
        $fresh | Should -Be 1
        $log | Should -Be @('outer before')
        $fresh = 2
    }

    Context 'inside' {
        BeforeEach { $log.Add('inner before') }
        AfterEach { $log.Add('inner after') }

        It 'come from the outside in, and back' {
            $fresh | Should -Be 1
            $log | Should -Be @('outer before', 'outer after', 'outer before', 'inner before')
        }
    }

    It 'were in order' {
        $log | Should -Be @('outer before', 'outer after', 'outer before', 'inner before', 'inner after', 'outer after', 'outer before')
    }
}

Describe 'Data' {
    It 'gives <_> as $_' -ForEach 1, 2 { $_ | Should -BeIn @(1, 2) }
    It 'gives the keys <name> and <value> as variables' -ForEach @{ Name = 'a'; Value = 1 }, @{ Name = 'b'; Value = 2 } {
        $name | Should -BeIn @('a', 'b')
        $_.Value | Should -Be $value
    }
    It 'binds to param' -TestCases @{ Number = 3 } {
        param($Number)
        $Number | Should -Be 3
    }
    It 'can come from discovery: <_>' -ForEach $atDiscovery { $_ | Should -BeIn @('first', 'second') }

    Context 'of a block: <_>' -ForEach 'x', 'y' {
        BeforeAll { $letter = $_ }
        It 'reaches BeforeAll and its tests' { $letter | Should -Be $_ }
    }
}

Describe 'Should' {
    It '-Be ignores case, -BeExactly does not' {
        'abc' | Should -Be 'ABC'
        'abc' | Should -Not -BeExactly 'ABC'
        'abc' | Should -BeExactly 'abc'
    }
    It '-Be compares lists item by item' {
        1, 2 | Should -Be @(1, 2)
        @(1, 2, 3) | Should -Not -Be @(1, 2)
        , @(1, 2) | Should -Be @(1, 2)
    }
    It '-Be fails for what differs' { { 1 | Should -Be 2 } | Should -Throw -ErrorId 'PesterAssertionFailed*' }
    It '-Not fails for what is the same' { { 1 | Should -Not -Be 1 } | Should -Throw }
    It '-BeTrue and -BeFalse' {
        $true | Should -BeTrue
        1 | Should -BeTrue
        $false | Should -BeFalse
        0 | Should -BeFalse
        { $false | Should -BeTrue } | Should -Throw
        { $true | Should -BeFalse } | Should -Throw
        { @($true, $false) | Should -BeTrue } | Should -Throw
    }
    It '-BeNullOrEmpty' {
        $null | Should -BeNullOrEmpty
        '' | Should -BeNullOrEmpty
        @() | Should -BeNullOrEmpty
        'a' | Should -Not -BeNullOrEmpty
        0 | Should -Not -BeNullOrEmpty
        @(1, 2) | Should -Not -BeNullOrEmpty
    }
    It 'compares sizes' {
        2 | Should -BeGreaterThan 1
        2 | Should -BeGreaterOrEqual 2
        1 | Should -BeLessThan 2
        2 | Should -BeLessOrEqual 2
        { 1 | Should -BeGreaterThan 1 } | Should -Throw
        { 2 | Should -BeLessThan 2 } | Should -Throw
    }
    It 'looks into lists' {
        1 | Should -BeIn @(1, 2)
        3 | Should -Not -BeIn @(1, 2)
        @(1, 2) | Should -Contain 2
        @(1, 2) | Should -Not -Contain 3
        @(1, 2) | Should -HaveCount 2
        @() | Should -HaveCount 0
        { @(1, 2) | Should -HaveCount 3 } | Should -Throw
    }
    It 'matches text' {
        'abc' | Should -Match '^A'
        'abc' | Should -MatchExactly '^a'
        'abc' | Should -Not -MatchExactly '^A'
        'abc' | Should -BeLike 'A*'
        'abc' | Should -Not -BeLikeExactly 'A*'
    }
    It 'looks at types' {
        1 | Should -BeOfType [int]
        'a' | Should -BeOfType string
        1 | Should -Not -BeOfType ([string])
    }
    It 'looks for paths' {
        '/' | Should -Exist
        '/no/such/path' | Should -Not -Exist
    }
    It '-Throw tells errors apart' {
        $action = { throw [Management.Automation.ErrorRecord]::new([InvalidOperationException]::new('it broke'), 'Broken', 'NotSpecified', $null) }
        $action | Should -Throw
        $action | Should -Throw 'it *'
        $action | Should -Throw -ExpectedMessage '*broke' -ErrorId 'Broken*' -ExceptionType ([InvalidOperationException])
        { $action | Should -Throw -ErrorId 'Other' } | Should -Throw
        { $action | Should -Throw -ExpectedMessage 'other' } | Should -Throw
        { $action | Should -Throw -ExceptionType ([ArgumentException]) } | Should -Throw
        { { 1 } | Should -Throw } | Should -Throw
        { $action | Should -Not -Throw } | Should -Throw
        { 1 } | Should -Not -Throw
        ($action | Should -Throw -PassThru).Exception.Message | Should -Be 'it broke'
    }
    It '-Throw passes over errors that do not end a command' {
        function Write-Failure {
            [CmdletBinding()]
            param()
            $PSCmdlet.WriteError([Management.Automation.ErrorRecord]::new([Exception]::new('failed'), 'Failed', 'NotSpecified', $null))
        }

        { Write-Failure -ErrorAction SilentlyContinue } | Should -Not -Throw
        { Write-Failure -ErrorAction Stop } | Should -Throw -ErrorId 'Failed*'
    }
    It '-Because is told' {
        { 1 | Should -Be 2 -Because 'of arithmetic' } | Should -Throw -ExpectedMessage '*because of arithmetic*'
    }
    It 'takes -ActualValue' { Should -Be 1 -ActualValue 1 }
}

Describe 'A run with failures' {
    BeforeAll {
        $fixture = [IO.Path]::Combine($PSScriptRoot, 'Runner', 'Fixtures', 'Failing.ps1')
        $run = Invoke-Runner '-Path', $fixture
    }

    It 'ends with exit status 1' { $run.Status | Should -Be 1 }
    It 'says that <name> is <outcome>' -ForEach @(
        @{ Name = 'Fixture.passes'; Outcome = 'Passed' }
        @{ Name = 'Fixture.fails an assertion'; Outcome = 'Failed' }
        @{ Name = 'Fixture.throws'; Outcome = 'Failed' }
        @{ Name = 'Fixture.calls what does not exist'; Outcome = 'Failed' }
        @{ Name = 'Fixture.runs after all that'; Outcome = 'Passed' }
        @{ Name = 'Fixture.AfterEach fails.reports it'; Outcome = 'Failed' }
        @{ Name = 'Fixture.BeforeAll fails.never runs'; Outcome = 'Failed' }
        @{ Name = 'Fixture.skips'; Outcome = 'Skipped' }
        @{ Name = 'Fixture.is marked to be skipped'; Outcome = 'Skipped' }
        @{ Name = 'Fixture.a skipped block.is not set up'; Outcome = 'Skipped' }
    ) { $run.Tests[$name].Outcome | Should -Be $outcome }
    It 'gives a failure its file and line' { $run.Tests['Fixture.fails an assertion'].Detail | Should -Match 'Failing\.ps1.*\b8\b' }
    It 'says what was expected and what was there' { $run.Tests['Fixture.fails an assertion'].Detail | Should -Match '2.*1' }
    It 'gives the reason of a skip' { $run.Tests['Fixture.skips'].Detail | Should -Match 'for a reason' }
}

Describe 'Choosing tests' {
    BeforeAll { $fixture = [IO.Path]::Combine($PSScriptRoot, 'Runner', 'Fixtures', 'Failing.ps1') }

    It 'runs only what -Filter names' {
        $run = Invoke-Runner '-Path', $fixture, '-Filter', 'Fixture.passes'
        @($run.Tests.Keys) | Should -Be @('Fixture.passes')
        $run.Status | Should -Be 0
    }
    It 'runs only what has a tag' {
        $run = Invoke-Runner '-Path', $fixture, '-Tag', 'chosen'
        @($run.Tests.Keys) | Should -Be @('Fixture.runs after all that')
    }
}

Describe 'A file that does not parse' {
    It 'is a failure' {
        $run = Invoke-Runner '-Path', ([IO.Path]::Combine($PSScriptRoot, 'Runner', 'Fixtures', 'Broken.ps1'))
        $run.Status | Should -Be 1
        @($run.Tests.Values)[0].Outcome | Should -Be 'Failed'
    }
}
