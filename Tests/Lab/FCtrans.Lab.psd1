@{
    RootModule           = 'FCtrans.Lab.dll'
    ModuleVersion        = '0.1.0'
    GUID                 = '5f0b8a1e-7d0c-4a52-9c55-3f1f3e2b6a90'
    Author               = 'The FCtrans maintainers'
    Description          = 'Hosts and guests to try FCtrans with, on one machine. Works inside Tests/Lab/enter.'
    PowerShellVersion    = '7.4'
    CompatiblePSEditions = @('Core')
    CmdletsToExport      = @(
        'New-Lab', 'Remove-Lab', 'New-LabHost', 'Remove-LabHost', 'Invoke-LabHost', 'Set-LabLink',
        'Start-LabGuest', 'Invoke-LabGuest', 'Get-LabGuestStat', 'Move-LabGuestConsole', 'Stop-LabGuest')
    FunctionsToExport    = @()
    AliasesToExport      = @()
    VariablesToExport    = @()
}
