using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>What cmdlets share that look at the memory of VMs, wherever they run.</summary>
public abstract class VmCmdlet : FCtransCmdlet
{
    /// <summary>VMs, or names of VMs on connected hosts, with wildcards; or hosts: all VMs there.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [ValidateNotNull]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmVmCompleter))]
    public VmReference[] VM { get; set; } = [];

    /// <summary>Runs each VM's part; what fails gets its error, and the next VM has its turn.</summary>
    private protected void ForVms(Action<KvmVm> part)
    {
        foreach (VmReference reference in VM)
        {
            KvmVm[] vms = [];
            ForItem(reference.ToString(), () => vms = Await(reference.ResolveAllAsync));
            foreach (KvmVm vm in vms)
            {
                ForItem(vm.Name, () => part(vm));
            }
        }
    }
}
