# The module as PowerShell sees it: what it exports, that its packages stay apart, that it can be imported again, and what all cmdlets
# keep to.

BeforeDiscovery {
    $cmdlets = @(
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
}

BeforeAll {
    $root = [IO.Path]::GetFullPath([IO.Path]::Combine($PSScriptRoot, '..', '..'))
    $manifest = [IO.Path]::Combine($root, 'out', 'FCtrans', 'FCtrans.psd1')
    Import-Module $manifest
    $expected = @((& ([scriptblock]::Create([IO.File]::ReadAllText($manifest)))).CmdletsToExport)
    $assembly = (Get-Command Connect-KvmHost).ImplementingType.Assembly

    # Views by type: the kinds of control that it has.
    $views = @{}
    $scripts = @{}
    $properties = @{}
    $tables = @{}
    foreach ($path in [IO.Directory]::GetFiles([IO.Path]::Combine($root, 'out', 'FCtrans'), '*.Format.ps1xml')) {
        $document = [Xml.XmlDocument]::new()
        $document.Load($path)
        foreach ($view in $document.SelectNodes('//View')) {
            foreach ($type in $view.SelectNodes('ViewSelectedBy/TypeName')) {
                $name = $type.InnerText
                if ($view.SelectSingleNode('TableControl')) { $tables[$name] = $view.SelectSingleNode('TableControl') }
                $views[$name] = @($views[$name]) + @($view.SelectNodes('*').Name | Where-Object { $_ -like '*Control' })
                $scripts[$name] = @($scripts[$name] | Where-Object { $_ }) + @($view.SelectNodes('.//ScriptBlock') | ForEach-Object { $_.InnerText })
                $properties[$name] = @($properties[$name] | Where-Object { $_ }) + @($view.SelectNodes('.//PropertyName') | ForEach-Object { $_.InnerText })
            }
        }
    }

    <# Runs a script in a PowerShell of its own; what it printed. #>
    function Invoke-Apart([string] $Script) {
        $said = @(& ([Environment]::ProcessPath) -NoProfile -NonInteractive -Command $Script 2>&1)
        if ($LASTEXITCODE -ne 0) { throw "It failed: $($said -join "`n")" }
        $said -join "`n"
    }
}

Describe 'The module' {
    It 'exports its cmdlets and nothing else' {
        $module = Get-Module FCtrans
        @($module.ExportedCmdlets.Keys) -join ' ' | Should -Be ($expected -join ' ')
        @($module.ExportedFunctions.Keys) + @($module.ExportedAliases.Keys) + @($module.ExportedVariables.Keys) | Should -HaveCount 0
    }

    It 'has a manifest that holds' {
        (Test-ModuleManifest $manifest).Version | Should -Be ([version] $assembly.GetName().Version.ToString(3))
    }

    It 'can be imported again' {
        Import-Module $manifest -Force
        @(Get-Command -Module FCtrans).Name -join ' ' | Should -Be ($expected -join ' ')
    }

    It 'does not pass off one version for another that was imported before' {
        $copy = [IO.Directory]::CreateTempSubdirectory('fctrans-copy-').FullName
        try {
            $from = [IO.Path]::GetDirectoryName($manifest)
            $null = [IO.Directory]::CreateDirectory("$copy/bin")
            foreach ($path in [IO.Directory]::GetFiles($from)) { [IO.File]::Copy($path, [IO.Path]::Combine($copy, [IO.Path]::GetFileName($path))) }
            foreach ($path in [IO.Directory]::GetFiles("$from/bin")) { [IO.File]::Copy($path, [IO.Path]::Combine($copy, 'bin', [IO.Path]::GetFileName($path))) }
            $said = Invoke-Apart "Import-Module '$manifest'; try { Import-Module '$copy/FCtrans.psd1' -ErrorAction Stop } catch { `$_.FullyQualifiedErrorId; `$_.Exception.Message }; (Get-Module FCtrans).Path; Import-Module '$manifest' -Force; 'again'"
            $said | Should -Match '(?m)^OtherModuleLoaded'
            $said | Should -Match "has the FCtrans of '$([regex]::Escape($from))'.*'$([regex]::Escape($copy))'.*Start a new PowerShell"
            $said | Should -Match "(?m)^$([regex]::Escape([IO.Path]::Combine($from, 'FCtrans.psm1')))`n?again"
            # By itself it is as good as any.
            Invoke-Apart "Import-Module '$copy/FCtrans.psd1'; (Get-Command Get-KvmHost).ImplementingType.Assembly.Location" | Should -Be ([IO.Path]::Combine($copy, 'bin', 'FCtrans.Cmdlets.dll'))
        }
        finally { [IO.Directory]::Delete($copy, $true) }
    }

    It 'loads on import only what the cmdlets themselves are of, and no package before it is used' {
        $loaded = '[Runtime.Loader.AssemblyLoadContext]::All | Where-Object Name -EQ FCtrans | ForEach-Object { @($_.Assemblies | ForEach-Object { $_.GetName().Name }) }'
        $said = @((Invoke-Apart "Import-Module '$manifest'; $loaded") -split "`n")
        $said | Should -Contain 'FCtrans.Cmdlets'
        foreach ($name in 'Renci.SshNet', 'Google.Protobuf', 'Grpc.Net.Client', 'Grpc.Core.Api') { $said | Should -Not -Contain $name }
    }

    It 'keeps its packages out of the load context of PowerShell' {
        $default = [Runtime.Loader.AssemblyLoadContext]::Default.Assemblies
        $shared = @($default | ForEach-Object { $_.GetName().Name } | Where-Object { $_ -in 'Renci.SshNet', 'Google.Protobuf', 'Grpc.Net.Client', 'FCtrans.Client', 'FCtrans.Cmdlets' })
        $shared | Should -HaveCount 0
        $context = [Runtime.Loader.AssemblyLoadContext]::GetLoadContext($assembly)
        $context.Name | Should -Be 'FCtrans'
    }

    It 'works beside a module that brings other versions of its packages, whichever comes first' {
        $other = [IO.Path]::Combine($root, 'Tests', 'OtherPackages', 'bin', 'Release', 'net8.0', 'FCtrans.OtherPackages.dll')
        # Nobody listens there: the SSH package has to load, to try and to say so. And a message of the agent's is made.
        $ours = @'
$password = [securestring]::new()
$password.AppendChar('x')
try { Connect-KvmHost 127.0.0.1 -Port 1 -SshConfigFile none -Credential ([pscredential]::new('x', $password)) -ErrorAction Stop } catch { $_.FullyQualifiedErrorId }
$context = [Runtime.Loader.AssemblyLoadContext]::GetLoadContext((Get-Command Connect-KvmHost).ImplementingType.Assembly)
$message = [Activator]::CreateInstance($context.LoadFromAssemblyName([Reflection.AssemblyName]::new('FCtrans.Contracts')).GetType('FCtrans.Contracts.HostInfo'))
$message.HostName = 'kvm1'
"$message $(@($context.Assemblies | ForEach-Object { $_.GetName() } | Where-Object Name -EQ 'Google.Protobuf').Version)"
'@
        $versions = '@(Get-OtherPackage | ForEach-Object { "$($_.Name) $($_.Version)" }) -join ", "'
        foreach ($script in "Import-Module '$other'; $versions; Import-Module '$manifest'; $ours", "Import-Module '$manifest'; $ours; Import-Module '$other'; $versions; $ours") {
            $said = Invoke-Apart $script
            $said | Should -Match 'Google\.Protobuf 3\.21\.9\.0, Renci\.SshNet 2016\.1\.0\.0'
            $said | Should -Match '(?m)^\{ "hostName": "kvm1" \} (?!3\.21\.)\d+'
            $said | Should -Match '(?m)^HostUnreachable,FCtrans\.Commands\.ConnectKvmHostCommand$'
        }
    }
}

Describe '<_>' -ForEach $cmdlets {
    BeforeAll {
        $name = $_
        $command = Get-Command $name
        $attribute = $command.ImplementingType.GetCustomAttributes([Management.Automation.CmdletAttribute], $false)[0]
    }

    It 'is among those that are exported, and has a test file of its own' {
        $expected | Should -Contain $name
        [IO.File]::Exists([IO.Path]::Combine($PSScriptRoot, 'Cmdlets', "$name.Tests.ps1")) | Should -BeTrue
    }

    It 'supports -WhatIf and -Confirm if it changes something, and asks nobody without -Confirm' {
        $command.Parameters.ContainsKey('WhatIf') | Should -Be ($command.Verb -notin 'Get', 'Show', 'Test', 'Wait', 'Watch')
        # High would ask by itself.
        [int] $attribute.ConfirmImpact | Should -BeLessThan ([int] [Management.Automation.ConfirmImpact]::High)
    }

    It 'says what it gives, and that has a table, a list and a wide view' {
        @($command.OutputType).Count | Should -BeGreaterThan 0
        foreach ($type in @($command.OutputType.Type | Where-Object { $_.FullName -like 'FCtrans.*' -and -not $_.IsSubclassOf([Management.Automation.Job]) })) {
            foreach ($control in 'TableControl', 'ListControl', 'WideControl') { $views[$type.FullName] | Should -Contain $control }
        }
    }

    It 'shows at once what it gives one by one for as long as it runs' {
        $streams = @(
            foreach ($output in $command.ImplementingType.GetCustomAttributes([Management.Automation.OutputTypeAttribute], $false)) {
                if ($command.Verb -eq 'Watch' -or ($command.Parameters.ContainsKey('Continuous') -and $output.ParameterSetName -notcontains 'Once')) { $output.Type.Type }
            }
        ) | Where-Object { $_.FullName -like 'FCtrans.*' -and -not $_.IsSubclassOf([Management.Automation.Job]) }
        if ($command.Verb -eq 'Watch' -or $command.Parameters.ContainsKey('Continuous')) { @($streams).Count | Should -Be 1 }
        foreach ($type in $streams) {
            # PowerShell keeps a table back that is as wide as all its rows need, and the first row of one with a column of no width.
            $tables[$type.FullName].SelectNodes('AutoSize') | Should -HaveCount 0
            foreach ($header in $tables[$type.FullName].SelectNodes('TableHeaders/TableColumnHeader')) { [int] $header.SelectSingleNode('Width').InnerText | Should -BeGreaterThan 0 }
        }
    }

    It 'takes what names a VM, and a migration, from objects too' {
        foreach ($parameter in @($command.Parameters['VM', 'SplitId', 'Name'] | Where-Object { $_ })) {
            # A host has a name of its own to be given.
            if ("$name $($parameter.Name)" -eq 'Connect-KvmHost Name') { continue }
            @($parameter.ParameterSets.Values | Where-Object ValueFromPipelineByPropertyName).Count | Should -BeGreaterThan 0 -Because "-$($parameter.Name)"
            if ($parameter.Name -eq 'VM') { @($parameter.ParameterSets.Values | Where-Object ValueFromPipeline).Count | Should -BeGreaterThan 0 }
        }
    }

    It 'takes hosts, VMs and memory by the same names as all, completes and documents wildcards' {
        foreach ($parameter in $command.Parameters.Values) {
            $type = ($parameter.ParameterType.GetElementType() ?? $parameter.ParameterType).FullName
            $completer = @($parameter.Attributes | Where-Object { $_ -is [Management.Automation.ArgumentCompleterAttribute] })
            switch ($type) {
                'FCtrans.Commands.VmReference' { $parameter.Name | Should -Be 'VM'; $parameter.ParameterType.IsArray | Should -BeTrue; $parameter.Aliases | Should -Contain 'Name'; $completer | Should -HaveCount 1 }
                'FCtrans.Commands.KvmHostReference' { $parameter.Name | Should -BeIn 'KvmHost', 'MainHost', 'SubHost'; $completer | Should -HaveCount 1 }
                'FCtrans.Commands.MemorySize' { $parameter.Name | Should -Be 'MainMemory' }
            }

            # Of a main host there is one.
            if (($type -in 'FCtrans.Commands.VmReference', 'FCtrans.Commands.KvmHostReference' -or $parameter.Name -eq 'SubHost') -and $parameter.Name -ne 'MainHost') {
                if ($parameter.Name -eq 'SubHost') { $parameter.ParameterType.IsArray | Should -BeTrue }
                if (-not @($parameter.Attributes | Where-Object { $_ -is [Management.Automation.SupportsWildcardsAttribute] })) { throw "$name -$($parameter.Name) takes no wildcards." }
            }

            switch ($parameter.Name) {
                'Interval' { $parameter.ParameterType.ToString() | Should -Be 'System.Double' }
                'Continuous' { $parameter.ParameterType.ToString() | Should -Be 'System.Management.Automation.SwitchParameter' }
                'SplitId' { $completer | Should -HaveCount 1 }
            }
        }
    }
}

Describe 'Parameters that are times and sizes' {
    BeforeAll {
        function ConvertTo-Parameter([string] $Kind, $Value, [switch] $InSeconds) {
            $transformation = [Activator]::CreateInstance($assembly.GetType("FCtrans.Commands.${Kind}Attribute", $true))
            if ($InSeconds) { $transformation.InSeconds = $true }
            $transformation.Transform($null, $Value)
        }
    }

    It 'are all understood in the same way' {
        foreach ($command in Get-Command -Module FCtrans) {
            foreach ($parameter in $command.Parameters.Values) {
                $kinds = @($parameter.Attributes | ForEach-Object { $_.GetType().Name })
                if ($parameter.Name -eq 'Interval' -or "$($parameter.ParameterType)" -match 'TimeSpan') { $kinds | Should -Contain 'DurationAttribute' }
                if ($parameter.ParameterType -eq [long]) { $kinds | Should -Contain 'ByteCountAttribute' }
            }
        }
    }

    It 'are <Seconds> seconds, given <Value>' -ForEach @(
        @{ Value = 60; Seconds = 60 }, @{ Value = 0.1; Seconds = 0.1 }, @{ Value = [decimal] 1.5; Seconds = 1.5 }, @{ Value = '60'; Seconds = 60 }, @{ Value = '.25'; Seconds = 0.25 }
        @{ Value = '100ms'; Seconds = 0.1 }, @{ Value = '30 s'; Seconds = 30 }, @{ Value = '5m'; Seconds = 300 }, @{ Value = '5min'; Seconds = 300 }, @{ Value = '1.5H'; Seconds = 5400 }, @{ Value = '2d'; Seconds = 172800 }
        @{ Value = '00:01:00'; Seconds = 60 }, @{ Value = '0:0:0.1'; Seconds = 0.1 }, @{ Value = '1.00:00:00'; Seconds = 86400 }, @{ Value = [timespan]::FromSeconds(7); Seconds = 7 }, @{ Value = -1; Seconds = -1 }
    ) {
        $span = ConvertTo-Parameter Duration $Value
        $span | Should -BeOfType ([timespan])
        $span.TotalSeconds | Should -Be $Seconds
        ConvertTo-Parameter Duration $Value -InSeconds | Should -Be $Seconds
    }

    It 'are no times, given <_>' -ForEach @('', 'soon', '1 year', '1e3', '5:', '99999999999d', $true) {
        { ConvertTo-Parameter Duration $_ } | Should -Throw -ExpectedMessage '*0:30:00*'
    }

    It 'are what was written, though PowerShell takes a letter after a number for its type' {
        # A day is longer than an interval may be; the decimal 1 would not be.
        { Get-VmRemotePaging nobody -Continuous -Interval 1d } | Should -Throw -ErrorId 'ParameterArgumentValidationError,*'
        { Get-VmRemotePaging nobody -Continuous -Interval soon } | Should -Throw -ErrorId 'ParameterArgumentTransformationError,*'
    }

    It 'are <Bytes> bytes, given <Value>' -ForEach @(
        @{ Value = '32GiB'; Bytes = 32GB }, @{ Value = '32gb'; Bytes = 32GB }, @{ Value = '1.5 MiB'; Bytes = 1.5MB }, @{ Value = '4096'; Bytes = 4096 }, @{ Value = 2MB; Bytes = 2MB }
    ) {
        ConvertTo-Parameter ByteCount $Value | Should -Be $Bytes
    }

    It 'are no sizes, given <_>' -ForEach @('', 'much', '25%', '-1GB', '1e30') {
        { ConvertTo-Parameter ByteCount $_ } | Should -Throw -ExpectedMessage '*32GiB*'
    }

    It 'keep their old names' {
        foreach ($name in 'Start-SplitMigration', 'Test-SplitMigration') { (Get-Command $name).Parameters.MaxBytesPerSecond.Aliases | Should -Be 'BandwidthLimitBytesPerSecond' }
        (Get-Command Optimize-VmMemory).Parameters.MaxBytesPerSecond.Aliases | Should -Be 'MaxRate'
    }
}

Describe 'The result types' {
    It 'all have a table, a list and a wide view' {
        foreach ($type in $assembly.GetExportedTypes()) {
            if ($type.Namespace -ne 'FCtrans' -or $type.IsEnum) { continue }
            foreach ($control in 'TableControl', 'ListControl', 'WideControl') {
                if ($views[$type.FullName] -notcontains $control) { throw "$($type.FullName) has no $control." }
            }
        }
    }

    It 'say the unit of a number of bytes in its name' {
        foreach ($type in $assembly.GetExportedTypes()) {
            if ($type.Namespace -ne 'FCtrans' -or $type.IsEnum) { continue }
            foreach ($property in $type.GetProperties()) {
                if ($property.Name -in 'Start', 'Length', 'Size', 'Offset' -and $property.PropertyType -ne [datetime]) { throw "$($type.Name).$($property.Name) has no unit." }
            }
        }
    }

    It 'have what their views show' {
        foreach ($name in $views.Keys) {
            $type = $assembly.GetType($name, $true)
            foreach ($property in $properties[$name]) {
                if (-not $type.GetProperty($property)) { throw "A view shows $name.$property, which there is not." }
            }

            foreach ($script in $scripts[$name]) {
                $failures = $null
                $ast = [Management.Automation.Language.Parser]::ParseInput($script, [ref] $null, [ref] $failures)
                @($failures) | Should -HaveCount 0
                foreach ($member in $ast.FindAll({ $args[0] -is [Management.Automation.Language.MemberExpressionAst] -and $args[0].Expression -is [Management.Automation.Language.VariableExpressionAst] -and $args[0].Expression.VariablePath.UserPath -eq '_' }, $false)) {
                    if (-not $type.GetProperty("$($member.Member)")) { throw "A view shows $name.$($member.Member), which there is not: $script" }
                }
            }
        }
    }
}
