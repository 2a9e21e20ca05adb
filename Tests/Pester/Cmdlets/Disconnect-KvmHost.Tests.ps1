# Closing connections: what runs on the hosts goes on.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
}

Describe 'Disconnect-KvmHost' {
    BeforeEach {
        $kvmHost = (Connect-StandingHost one, two).one
    }

    It 'disconnects by object, and what was disconnected can not be used' {
        $kvmHost | Disconnect-KvmHost
        $kvmHost.IsConnected | Should -BeFalse
        (Get-KvmHost).Name | Should -Be 'two'
        Assert-Failure ({ Get-KvmVm -KvmHost $kvmHost -ErrorAction Stop } | Should -Throw -PassThru) HostNotConnected ObjectNotFound one
    }

    It 'takes names from the pipeline' {
        ('one', 't*' | Disconnect-KvmHost -PassThru).Name -join ' ' | Should -Be 'one two'
        Get-KvmHost | Should -BeNullOrEmpty
    }

    It 'needs no answer of the host' {
        Suspend-Agent two
        try { (Disconnect-KvmHost two -PassThru).IsConnected | Should -BeFalse }
        finally { Resume-Agent two }
        (Get-KvmHost).Name | Should -Be 'one'
    }

    It 'does nothing with -WhatIf' {
        Disconnect-KvmHost * -WhatIf
        @(Get-KvmHost).Count | Should -Be 2
    }

    It 'takes wildcards, says nothing, and gives the hosts with -PassThru' {
        Disconnect-KvmHost t* | Should -BeNullOrEmpty
        $gone = Disconnect-KvmHost * -PassThru
        Assert-Output Disconnect-KvmHost $gone
        $gone.Name | Should -Be 'one'
        Disconnect-KvmHost * | Should -BeNullOrEmpty
    }

    It 'names one that is not connected, and goes on with the others' {
        $failures = $null
        Disconnect-KvmHost three, one -ErrorAction SilentlyContinue -ErrorVariable failures
        Assert-Failure $failures[0] HostNotConnected ObjectNotFound three
        (Get-KvmHost).Name | Should -Be 'two'
    }

    It 'completes the names of connected hosts' {
        Get-Completion 'Disconnect-KvmHost ' | Should -Be @('one', 'two')
    }

    It 'leaves the others told that no host is connected' {
        Disconnect-KvmHost *
        Get-KvmHost | Should -BeNullOrEmpty
        Assert-Failure ({ Get-KvmVm -ErrorAction Stop } | Should -Throw -PassThru) NoHostConnected ObjectNotFound ''
        { Get-VmUnusedMemory vm -ErrorAction Stop } | Should -Throw -ErrorId 'NoHostConnected,*'
        { Get-SplitMigration -ErrorAction Stop } | Should -Throw -ErrorId 'NoHostConnected,*'
        { Stop-SplitMigration vm -ErrorAction Stop } | Should -Throw -ErrorId 'NoHostConnected,*'
    }
}
