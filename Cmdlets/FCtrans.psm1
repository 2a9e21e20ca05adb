# Loads the cmdlets into a load context of their own, so that their packages meet no other module's.
$bin = [IO.Path]::Combine($PSScriptRoot, 'bin')
if (-not ('FCtrans.Loader.ModuleLoadContext' -as [type])) {
    $null = [Reflection.Assembly]::LoadFrom([IO.Path]::Combine($bin, 'FCtrans.Loader.dll'))
}

# A type stays in its process. A second FCtrans would get the first one's cmdlets, and nobody would see it.
$loaded = [IO.Path]::GetDirectoryName([FCtrans.Loader.ModuleLoadContext].Assembly.Location)
if (-not [string]::Equals($loaded, $bin, $IsWindows ? 'OrdinalIgnoreCase' : 'Ordinal')) {
    throw [Management.Automation.ErrorRecord]::new(
        [InvalidOperationException]::new("This PowerShell has the FCtrans of '$([IO.Path]::GetDirectoryName($loaded))' already and can't load that of '$PSScriptRoot' beside it. Start a new PowerShell and import it there."),
        'OtherModuleLoaded', 'InvalidOperation', $PSScriptRoot)
}

$cmdlets = [FCtrans.Loader.ModuleLoadContext]::LoadCmdlets()
$inner = Import-Module -Assembly $cmdlets -PassThru -ErrorAction Stop

# A second import of the same assembly in one process does not export by itself what the first one did.
$export = [Management.Automation.PSModuleInfo].GetMethod('AddExportedCmdlet', [Reflection.BindingFlags] 'Instance, NonPublic')
if ($export) {
    foreach ($cmdlet in $inner.ExportedCmdlets.Values) {
        $export.Invoke($ExecutionContext.SessionState.Module, @(, $cmdlet))
    }
}
else {
    Export-ModuleMember -Cmdlet @($inner.ExportedCmdlets.Keys)
}
