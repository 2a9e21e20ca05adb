# Tests that fail, for Runner.Tests.ps1, which knows the names and that the failed assertion stands in line 8.

Describe 'Fixture' {
    It 'passes' { 1 | Should -Be 1 }

    It 'fails an assertion' {
        $value = 1
        $value | Should -Be 2
    }

    It 'throws' { throw 'thrown' }

    It 'calls what does not exist' { Invoke-WhatDoesNotExist -ErrorAction Stop }

    It 'breaks out of a loop that is not there' { break }

    It 'runs after all that' -Tag 'chosen' { 1 | Should -Be 1 }

    It 'skips' {
        Set-ItResult -Skipped -Because 'for a reason'
        throw 'not to be reached'
    }

    It 'is marked to be skipped' -Skip { throw 'not to be run' }

    Context 'a skipped block' -Skip {
        BeforeAll { throw 'nothing is set up for tests that do not run' }
        It 'is not set up' { throw 'not to be run' }
    }

    Context 'AfterEach fails' {
        AfterEach { throw 'teardown' }
        It 'reports it' { 1 | Should -Be 1 }
    }

    Context 'BeforeAll fails' {
        BeforeAll { throw 'set-up' }
        It 'never runs' { 1 | Should -Be 1 }
    }
}
