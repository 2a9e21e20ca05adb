# Domains of libvirt: found as such, and moved from one libvirt to another.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, 'LabFixture.ps1'))
    . ([IO.Path]::Combine($PSScriptRoot, 'LibvirtFixture.ps1'))
}

Describe 'A domain of libvirt' -Tag 'Vm' {
    BeforeAll {
        $setup = New-ConnectedLab source, main, sub
        $source, $main, $sub = 'source', 'main', 'sub' | ForEach-Object { $setup.Connection[$_] }
        Start-Libvirt $setup.Host.source
        $guest = Start-LabGuest -LabHost $setup.Host.source -Name vm1 -Memory 512MB -Libvirt -Persistent
        $null = Invoke-LabGuest -Guest $guest -Command 'fill 128'
        $null = Invoke-LabGuest -Guest $guest -Command 'run rate=2 threads=1 pace=64'
        $target = @{ VM = 'vm1'; MainHost = $main; SubHost = $sub; MainMemory = '25%' }
    }

    AfterAll {
        Remove-Lab
    }

    It 'is shown by Get-KvmVm, and can be split' {
        $vm = Get-KvmVm -KvmHost $source -Name vm1
        "$($vm.Obstacles)" | Should -Be ''
        "$($vm.Manager) $($vm.State) $($vm.CanSplit)" | Should -Be 'libvirt running True'
        $vm.Uuid | Should -Be "$($guest.Uuid)"
        (Get-VmUnusedMemory $vm).Method | Should -Be 'buddy'
    }

    It 'is not moved to a host without libvirt' {
        { Start-SplitMigration @target } | Should -Throw -ErrorId 'HostCapabilityMissing,*' -ExpectedMessage '*libvirt*'
        Get-DomainState $setup.Host.source vm1 | Should -Be 'running'
    }

    It 'runs on as a domain of the source when the migration is given up' {
        Start-Libvirt $setup.Host.main
        Copy-DomainImage $setup.Host.source $setup.Host.main
        { Start-SplitMigration @target -Mode PreCopy -MaxBytesPerSecond 1MB -Timeout 2 } | Should -Throw -ErrorId 'MigrationTimeout,*'
        Get-DomainState $setup.Host.source vm1 | Should -Be 'running'
        Wait-Until { -not (Get-DomainState $setup.Host.main vm1) } 'the main host has no domain'
        (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
    }

    It 'is a running domain of the main host afterwards, and its definition goes along on request' {
        $result = Start-SplitMigration @target -MovePersistentDomain
        $result.State | Should -Be 'Completed'
        Get-DomainState $setup.Host.main vm1 | Should -Be 'running'
        Get-DomainState $setup.Host.source vm1 | Should -Be ''
        Invoke-OnHost $setup.Host.main "virsh -q dominfo vm1 | grep '^Persistent' | tr -s ' '" | Should -Be 'Persistent: yes'
        Invoke-OnHost $setup.Host.main "virsh -q dumpxml --inactive vm1 | grep -c incoming || true" | Should -Be '0'
        Invoke-OnHost $setup.Host.source 'ls -A /dev/shm/libvirt/qemu 2>/dev/null; true' | Should -BeNullOrEmpty
    }

    It 'goes on working there without a wrong byte' {
        Move-LabGuestConsole -Guest $guest -LabHost $setup.Host.main
        (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
        (Get-VmRemotePaging -KvmHost $main).State | Should -Be 'paging'
        "$((Get-KvmVm -KvmHost $main -Name vm1).Manager)" | Should -Be 'libvirt'
    }

    It 'goes on when the main worker is killed' {
        $killed = Stop-Worker $setup.Host.main main
        Wait-Until { (Invoke-OnHost $setup.Host.main 'cat /run/fctrans/*/main/worker.pid') -ne $killed } 'a new worker has started'
        (Get-LabGuestStat -Guest $guest -FullPass).errors | Should -Be 0
    }

    It 'leaves nothing on any host when libvirt ends it' {
        $null = Invoke-OnHost $setup.Host.main 'virsh -q destroy vm1'
        foreach ($labHost in $setup.Host.main, $setup.Host.sub) {
            Wait-Until { -not (Get-LeftOver $labHost) } "nothing is left on $($labHost.Name)"
        }

        Get-DomainState $setup.Host.main vm1 | Should -Be 'shut off'
    }
}
