# A split VM that runs while it can't reach its sub-host: it says so, who touches what lies there waits, and all of it is there afterwards.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, 'LabFixture.ps1'))
}

Describe 'A running split VM whose sub-host can''t be reached' -Tag 'Vm' {
    BeforeAll {
        $setup = New-ConnectedLab source, main, sub
        $sub = $setup.Host.sub
        $guest = Start-LabGuest -LabHost $setup.Host.source -Name vm1 -Memory 512MB
        $null = Invoke-LabGuest -Guest $guest -Command 'fill 192'
        $null = Invoke-LabGuest -Guest $guest -Command 'run rate=4 threads=1 pace=64'
        $null = Start-SplitMigration vm1 -MainHost $setup.Connection.main -SubHost $setup.Connection.sub -MainMemory 128MB
        Move-LabGuestConsole -Guest $guest -LabHost $setup.Host.main
        (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0

        function Get-Paging { Get-VmRemotePaging vm1 -KvmHost $setup.Connection.main }

        # The loud state: that somebody waits, for which host, and why.
        function Wait-Loud([string] $Reason) {
            Wait-Until { (Get-Paging).State -eq 'waiting' } 'the state says that the sub-host is away'
            Wait-Until { (Get-Paging).Error -like $Reason } "the reason is $Reason"
            (Get-Paging).Error | Should -BeLike "Sub-host $($sub.Address):*"
            Wait-Until { (Get-Paging).QueueDepth -gt 0 } 'the guest waits for a page'
            # It stands still, but is no other's and loses nothing.
            $paging = Get-Paging
            $paging.IsVmRunning | Should -BeTrue
            $paging.LostBytes | Should -Be 0
            $paging.RemoteBytes | Should -BeGreaterThan 0
        }

        # The oracle goes through all its memory anew, which it can't without the sub-host's part.
        function Assert-GoesOn($Before) {
            Wait-Until { (Get-Paging).State -eq 'paging' } 'it is as before'
            (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
            $paging = Get-Paging
            "$($paging.State) $($paging.LostBytes) $($paging.Errors)" | Should -Be 'paging 0 0'
            $paging.PageIns | Should -BeGreaterThan $Before.PageIns
            $paging.Restarts | Should -Be $Before.Restarts
        }
    }

    AfterAll {
        Remove-ConnectedLab
    }

    It 'waits, loudly, while the link is cut, and goes on when it is restored' {
        $before = Get-Paging
        Set-LabLink $sub -Cut
        try { Wait-Loud '*could not be reached*' }
        finally { Set-LabLink $sub -Restore }
        Assert-GoesOn $before
    }

    It 'does not mind a link that is back before it was given up' {
        $before = Get-Paging
        Set-LabLink $sub -Cut
        try { Wait-Until { (Get-Paging).QueueDepth -gt 0 } 'the guest waits for a page' }
        finally { Set-LabLink $sub -Restore }
        Assert-GoesOn $before
    }

    It 'waits, loudly, while the sub-host''s worker is gone, and goes on when it is back' {
        $before = Get-Paging
        # Its supervisor stands still, so that nobody starts it again; what was asked of it meanwhile has been refused for a whole second of
        # tries, each later than the one before: 'within 1 s' is said then.
        $null = Invoke-OnHost $sub 'kill -STOP $(cat /run/fctrans/*/sub/supervisor.pid)'
        try {
            $killed = Stop-Worker $sub sub
            Wait-Loud '*could not be reached within*'
        }
        finally { $null = Invoke-OnHost $sub 'kill -CONT $(cat /run/fctrans/*/sub/supervisor.pid)' }
        Wait-Until { (Invoke-OnHost $sub 'cat /run/fctrans/*/sub/worker.pid') -ne $killed } 'a new worker has started'
        Assert-GoesOn $before
    }

    It 'goes on when the sub-host''s worker was killed so often that its supervisor takes its time' {
        $before = Get-Paging
        # After each death in the first seconds of a worker the pause grows, 0, 50 ms, 150 ms and so on, to 2 s at the seventh.
        for ($death = 0; $death -lt 8; $death++) {
            $killed = Stop-Worker $sub sub
            Wait-Until { (Invoke-OnHost $sub 'cat /run/fctrans/*/sub/worker.pid') -ne $killed } "a new worker has started after death $death"
        }

        Assert-GoesOn $before
    }
}
