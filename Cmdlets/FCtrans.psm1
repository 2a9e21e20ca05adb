# Loads the cmdlets into a load context of their own, so that their packages meet no other module's.
if (-not ('FCtrans.Loader.ModuleLoadContext' -as [type])) {
    $null = [Reflection.Assembly]::LoadFrom([IO.Path]::Combine($PSScriptRoot, 'bin', 'FCtrans.Loader.dll'))
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
