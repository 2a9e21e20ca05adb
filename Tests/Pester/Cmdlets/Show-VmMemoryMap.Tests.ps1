# The memory of a VM as a picture.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $null = Connect-StandingHost source, tiny
    $source = Get-KvmHost source
    $shared = $global:FCtransStandingLab.Guest.shared
}

Describe 'Show-VmMemoryMap' {
    It 'fits the size wished for, in letters where there are no colours' {
        $lines = @(Show-VmMemoryMap shared -Width 60 -Height 14)
        Assert-Output Show-VmMemoryMap $lines
        $lines.Count | Should -BeLessOrEqual 14
        foreach ($line in $lines) { $line.Length | Should -BeLessOrEqual 60 }
        $lines -join "`n" | Should -Not -Match '\x1b'
        $lines[0] | Should -Match '^shared on source: 256 MiB'
        $cells = -join @($lines[1..($lines.Count - 3)] | ForEach-Object { $_.Substring(10) })
        $cells | Should -Match '^[.#*b-]+$'
        $cells | Should -Match '#'
        $lines[-2..-1] -join ' ' | Should -Match 'never touched .*free .*used'
    }

    It 'takes VMs and names with wildcards from the pipeline' {
        foreach ($drawn in @(Get-KvmVm shared | Show-VmMemoryMap -Width 60 -Height 12), @('sha*', 'nobod*' | Show-VmMemoryMap -Width 60 -Height 12)) {
            $drawn[0] | Should -Match '^shared on source: 256 MiB'
            $drawn.Count | Should -BeLessOrEqual 12
        }
    }

    It 'names a VM that is not there, and one that can not be read' {
        Assert-Failure ({ Show-VmMemoryMap nobody -ErrorAction Stop } | Should -Throw -PassThru) VmNotFound ObjectNotFound nobody
        Assert-Failure ({ Show-VmMemoryMap private -ErrorAction Stop } | Should -Throw -PassThru) VmMemoryUnreadable InvalidOperation private
    }

    It 'completes names of VMs' {
        Get-Completion 'Show-VmMemoryMap -VM sh' | Should -Be 'shared'
    }

    It 'ends at Ctrl+C while a host does not answer' {
        Assert-StopsWhileWaiting tiny Show-VmMemoryMap @{ VM = 'shared' }
    }
}
