@{
    RootModule           = 'FCtrans.psm1'
    ModuleVersion        = '0.1.0'
    GUID                 = '5b3cf4a9-0e0b-4b7f-9f0e-6c1f6f4be6d2'
    Author               = 'The FCtrans maintainers'
    CompanyName          = 'The FCtrans maintainers'
    Copyright            = '(c) 2026 The FCtrans maintainers. MIT License.'
    Description          = 'Live split migration of large KVM virtual machines over several hosts, with remote paging, on stock QEMU, a stock kernel and an unmodified guest.'
    PowerShellVersion    = '7.4'
    CompatiblePSEditions = @('Core')
    FormatsToProcess     = @(
        'FCtrans.Host.Format.ps1xml'
        'FCtrans.Vm.Format.ps1xml'
        'FCtrans.Migration.Format.ps1xml'
        'FCtrans.Paging.Format.ps1xml'
    )
    FunctionsToExport    = @()
    AliasesToExport      = @()
    VariablesToExport    = @()
    CmdletsToExport      = @(
        'Add-VmSubHost'
        'Connect-KvmHost'
        'Disconnect-KvmHost'
        'Export-SplitMigrationReport'
        'Get-KvmHost'
        'Get-KvmVm'
        'Get-SplitMigration'
        'Get-VmMemoryMap'
        'Get-VmRemotePaging'
        'Get-VmUnusedMemory'
        'Optimize-VmMemory'
        'Remove-VmSubHost'
        'Set-VmRemotePaging'
        'Show-VmMemoryMap'
        'Start-SplitMigration'
        'Stop-SplitMigration'
        'Test-KvmHost'
        'Test-SplitMigration'
        'Uninstall-KvmHostAgent'
        'Wait-SplitMigration'
        'Watch-VmRemotePaging'
    )
    PrivateData          = @{
        PSData = @{
            Tags         = @('KVM', 'QEMU', 'VirtualMachine', 'LiveMigration', 'RemoteMemory', 'Linux')
            LicenseUri   = 'https://opensource.org/license/mit'
            ReleaseNotes = 'First version: split migration over a main host and sub-hosts, and remote paging.'
        }
    }
}
