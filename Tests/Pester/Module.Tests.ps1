# The module as PowerShell sees it: what it exports, that its packages stay apart, and that it can be imported again.

BeforeAll {
    $root = [IO.Path]::GetFullPath([IO.Path]::Combine($PSScriptRoot, '..', '..'))
    $manifest = [IO.Path]::Combine($root, 'out', 'FCtrans', 'FCtrans.psd1')
    Import-Module $manifest
    $expected = @(
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
}

Describe 'The module' {
    It 'exports its cmdlets and nothing else' {
        $module = Get-Module FCtrans
        @($module.ExportedCmdlets.Keys) -join ' ' | Should -Be ($expected -join ' ')
        @($module.ExportedFunctions.Keys) + @($module.ExportedAliases.Keys) + @($module.ExportedVariables.Keys) | Should -HaveCount 0
    }

    It 'can be imported again' {
        Import-Module $manifest -Force
        @(Get-Command -Module FCtrans).Name -join ' ' | Should -Be ($expected -join ' ')
    }

    It 'keeps its packages out of the load context of PowerShell' {
        $default = [Runtime.Loader.AssemblyLoadContext]::Default.Assemblies
        $shared = @($default | ForEach-Object { $_.GetName().Name } | Where-Object { $_ -in 'Renci.SshNet', 'Google.Protobuf', 'Grpc.Net.Client', 'FCtrans.Client', 'FCtrans.Cmdlets' })
        $shared | Should -HaveCount 0
        $context = [Runtime.Loader.AssemblyLoadContext]::GetLoadContext((Get-Command Connect-KvmHost).ImplementingType.Assembly)
        $context.Name | Should -Be 'FCtrans'
    }

    It 'supports -WhatIf in <_>' -ForEach @('Connect-KvmHost', 'Disconnect-KvmHost', 'Start-SplitMigration', 'Stop-SplitMigration', 'Uninstall-KvmHostAgent') {
        (Get-Command $_).Parameters.ContainsKey('WhatIf') | Should -BeTrue
    }

    It 'takes host, VM and memory by the same names everywhere' {
        foreach ($name in $expected) {
            foreach ($parameter in (Get-Command $name).Parameters.Values) {
                switch ($parameter.ParameterType.GetElementType() ?? $parameter.ParameterType) {
                    { $_.FullName -eq 'FCtrans.Commands.VmReference' } { $parameter.Name | Should -Be 'VM' }
                    { $_.FullName -eq 'FCtrans.Commands.KvmHostReference' } { $parameter.Name | Should -BeIn 'KvmHost', 'MainHost', 'SubHost' }
                }
            }
        }
    }
}
