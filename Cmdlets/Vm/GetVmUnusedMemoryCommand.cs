using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>Get-VmUnusedMemory: how much of a VM's memory its guest does not use, seen from outside.</summary>
[Cmdlet(VerbsCommon.Get, "VmUnusedMemory")]
[OutputType(typeof(VmUnusedMemory))]
public sealed class GetVmUnusedMemoryCommand : FCtransCmdlet
{
    /// <summary>VMs, or names of VMs on connected hosts.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [ValidateNotNull]
    [ArgumentCompleter(typeof(KvmVmCompleter))]
    public VmReference[] VM { get; set; } = [];

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        foreach (VmReference reference in VM)
        {
            ForItem(reference.ToString(), () => WriteObject(Await(async stop =>
            {
                KvmVm vm = await reference.ResolveAsync(stop).ConfigureAwait(false);
                return new VmUnusedMemory(
                    vm, await vm.KvmHost.Connection.GetUnusedMemoryAsync(vm.Name, stop).ConfigureAwait(false));
            })));
        }
    }
}
