using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>Get-KvmVm: the VMs that run on connected hosts.</summary>
[Cmdlet(VerbsCommon.Get, "KvmVm", DefaultParameterSetName = VMSet)]
[OutputType(typeof(KvmVm))]
public sealed class GetKvmVmCommand : FCtransCmdlet
{
    private const string VMSet = "VM";
    private const string HostSet = "Host";

    private bool _hostsNamed;

    /// <summary>Names of VMs, with wildcards; VMs, which are looked at again, wherever they run now; or hosts: all VMs there. Default: all.</summary>
    [Parameter(Position = 0, ParameterSetName = VMSet, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Parameter(Position = 0, ParameterSetName = HostSet)]
    [Alias("Name")]
    [ValidateNotNull]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmVmCompleter))]
    public VmReference[] VM { get; set; } = [new("*")];

    /// <summary>Hosts to look on. Default: all connected ones.</summary>
    [Parameter(ParameterSetName = VMSet, ValueFromPipelineByPropertyName = true)]
    [Parameter(ParameterSetName = HostSet, Mandatory = true, ValueFromPipeline = true)]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    public KvmHostReference[]? KvmHost { get; set; }

    /// <inheritdoc/>
    protected override void BeginProcessing() => _hostsNamed = KvmHost is not null;

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        // A VM that comes through the pipeline has the host that it was on; it may have left there.
        bool anywhere = !_hostsNamed && ParameterSetName == VMSet && VM is [{ IsObject: true }];
        KvmHost[] hosts = Hosts(anywhere ? null : KvmHost, VM);
        if (hosts.Length == 0)
        {
            return;
        }

        var all = new List<KvmVm>();
        bool complete = true;
        ForHosts(
            hosts,
            (host, stop) => host.Connection.ListVmsAsync(stop),
            (host, vms) => all.AddRange(vms.OrderBy(v => v.Name, StringComparer.OrdinalIgnoreCase).Select(v => new KvmVm(host, v))),
            () => complete = false);
        var meant = new HashSet<KvmVm>();
        var missing = new List<VmReference>();
        foreach (VmReference reference in VM)
        {
            ForItem(reference.ToString(), () =>
            {
                KvmVm[] found = reference.PickNow(all);
                meant.UnionWith(found);
                if (found.Length == 0 && !reference.IsPattern)
                {
                    missing.Add(reference);
                }
            });
        }

        foreach (KvmVm vm in all.Where(meant.Contains))
        {
            WriteObject(vm);
        }

        // A host that could not be asked has its own error; whether the VM is there, nobody knows.
        foreach (VmReference reference in missing.Where(_ => complete))
        {
            WriteError(Errors.Record(
                Failure.VmNotFound(reference.ToString(), string.Join(", ", hosts.Select(h => $"'{h.Name}'"))), reference.ToString()));
        }
    }
}
