# What each part of the memory of a VM is, and where it lies.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $null = Connect-StandingHost source, tiny
    $source = Get-KvmHost source
    $shared = $global:FCtransStandingLab.Guest.shared
}

Describe 'Get-VmMemoryMap' {
    It 'is all of the memory, once, and agrees with the figures' {
        foreach ($granularity in 4KB, 1MB) {
            $map = @(Get-VmMemoryMap shared -Granularity $granularity)
            Assert-Output Get-VmMemoryMap $map[0]
            $next = 0; $used = 0; $resident = 0
            foreach ($range in $map) {
                $range.StartBytes | Should -Be $next
                $next += $range.LengthBytes; $used += $range.UsedBytes; $resident += $range.ResidentBytes
                if ($granularity -eq 4KB) { [Math]::Max([Math]::Max($range.UsedBytes, $range.FreeBytes), [Math]::Max($range.NeverTouchedBytes, $range.BalloonedBytes)) | Should -Be $range.LengthBytes }
            }

            $next | Should -Be 256MB
            [Math]::Abs($used - [double] (Get-VmUnusedMemory shared).UsedBytes) | Should -BeLessThan 8MB
            [Math]::Abs($resident - [double] (Get-KvmVm shared).ResidentBytes) | Should -BeLessThan 8MB
        }

        @($map | Where-Object { "$($_.Kind)" -eq 'NeverTouched' -and $_.Place }) | Should -HaveCount 0
        @($map | Where-Object { "$($_.Kind)" -eq 'Used' })[0].Place | Should -Be 'source'
        $map[0].GuestPhysicalAddress | Should -Be 0
        # The guest's kernel has some page active, of the program that it runs.
        @($map | Where-Object HotBytes).Count | Should -BeGreaterThan 0
    }

    It 'gives each part by itself if wished' {
        $parts = @(Get-KvmVm shared | Get-VmMemoryMap -Granularity 16MB -Unmerged)
        $parts | Should -HaveCount 16
        foreach ($part in $parts) { $part.LengthBytes | Should -Be 16MB }
    }

    It 'takes names with wildcards, from the pipeline too' {
        @('sha*', 'nobod*' | Get-VmMemoryMap -Granularity 64MB -Unmerged) | Should -HaveCount 4
        Get-VmMemoryMap nobod* | Should -BeNullOrEmpty
    }

    It 'refuses a granularity that there is not, and a VM that can not be read' {
        Assert-Failure ({ Get-VmMemoryMap shared -Granularity 6000 } | Should -Throw -PassThru) GranularityInvalid InvalidArgument 6000
        Assert-Failure ({ Get-VmMemoryMap private -ErrorAction Stop } | Should -Throw -PassThru) VmMemoryUnreadable InvalidOperation private
    }

    It 'completes names of VMs' {
        Get-Completion 'Get-VmMemoryMap -VM sh' | Should -Be 'shared'
    }

    It 'ends at Ctrl+C while a host does not answer' {
        Assert-StopsWhileWaiting tiny Get-VmMemoryMap @{ VM = 'shared' }
    }
}
