# Taking sub-hosts from VMs while they run. That nothing of the VM is lost or left: SplitMigration.Tests.ps1.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $split = Get-StandingSplit
}

Describe 'Remove-VmSubHost' {
    It 'removes nothing with -WhatIf' {
        Remove-VmSubHost paged sub2 -WhatIf
        Remove-VmSubHost paged sub2 -Lost -WhatIf
        Remove-VmSubHost paged sub* -Lost -Force -WhatIf
        (Get-VmRemotePaging paged).SubHostStates -join ' ' | Should -BeLike 'serving serving*'
    }

    It 'loses memory only when somebody has said so' {
        # Nobody can be asked here.
        Assert-Failure ({ Remove-VmSubHost paged sub2 -Lost -ErrorAction Stop } | Should -Throw -PassThru) ConfirmationNeeded InvalidOperation paged
        (Remove-VmSubHost paged sub2 -Lost -ErrorAction SilentlyContinue -ErrorVariable failures) | Should -BeNullOrEmpty
        "$($failures[0])" | Should -BeLike '*-Force*'
        (Get-VmRemotePaging paged).SubHostStates -join ' ' | Should -BeLike 'serving serving*'
    }

    It 'completes VMs and the sub-hosts that they have' {
        Get-Completion 'Remove-VmSubHost pag' | Should -Be 'paged'
        Get-Completion 'Remove-VmSubHost paged ' | Should -Be @('sub', 'sub2')
        Get-Completion 'Remove-VmSubHost -VM shared -SubHost su' | Should -Not -Contain 'sub2'
    }

    It 'names what there is not' {
        Assert-Failure ({ Remove-VmSubHost nobody sub2 -ErrorAction Stop } | Should -Throw -PassThru) MigrationNotFound ObjectNotFound nobody
        Assert-Failure ({ Remove-VmSubHost paged nowhere -ErrorAction Stop } | Should -Throw -PassThru) SubHostNotRemoved InvalidOperation paged
        # Each has its turn; what a pattern does not match is no error.
        Remove-VmSubHost paged nowhere, gone*, elsewhere -ErrorAction SilentlyContinue -ErrorVariable failures
        @($failures | ForEach-Object { [regex]::Match("$_", "'(nowhere|elsewhere)'").Groups[1].Value }) -join ' ' | Should -Be 'nowhere elsewhere'
        Remove-VmSubHost pag* gone* -PassThru -ErrorAction Stop | Should -BeNullOrEmpty
    }

    It 'ends at Ctrl+C while the host does not answer' {
        Assert-StopsWhileWaiting main Remove-VmSubHost @{ VM = 'paged'; SubHost = 'nowhere' }
    }

    It 'asks nobody, as a job, and the VM goes on with the other' {
        # Slowly, so that there is something to be seen of it.
        Set-LabLink -LabHost $labHost.sub2 -Bandwidth 8000000
        try {
            $job = Get-VmRemotePaging paged | Remove-VmSubHost -SubHost *2, SUB2 -AsJob
            Assert-Output Remove-VmSubHost $job
            $null = Wait-Job $job -Timeout 120
        }
        finally { Set-LabLink -LabHost $labHost.sub2 -Bandwidth 0 }

        "$($job.Name): $($job.State)" | Should -Be 'Remove sub2 from paged: Completed'
        # Receive-Job takes them.
        $records = @($job.Progress)
        $paging = Receive-Job $job
        Assert-Output Remove-VmSubHost $paging
        $paging.SubHostStates -join ' ' | Should -BeLike 'serving left*'
        @($records | Where-Object { $_.StatusDescription -match ' to go$' -and $_.PercentComplete -gt 0 -and $_.SecondsRemaining -ge 0 }).Count | Should -BeGreaterThan 0
        Assert-ProgressEnded $records
        Remove-Job $job
        (Get-LabGuestStat -Guest $global:FCtransStandingLab.Guest.paged -FullPass).errors | Should -Be 0
        (Get-VmRemotePaging paged).State | Should -Be 'paging'
    }
}
