using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Get-VmRemotePaging: the remote paging of split VMs, from their main hosts.</summary>
[Cmdlet(VerbsCommon.Get, "VmRemotePaging", DefaultParameterSetName = OnceSet)]
[OutputType(typeof(VmRemotePaging), ParameterSetName = [OnceSet])]
[OutputType(typeof(VmRemotePagingSample), ParameterSetName = [ContinuousSet])]
public sealed class GetVmRemotePagingCommand : FCtransCmdlet
{
    private const string OnceSet = "Once";
    private const string ContinuousSet = "Continuous";

    private readonly List<VmReference> _watched = [];

    /// <summary>VMs (also as they were before their migration), or names of VMs with wildcards; or main hosts: all split VMs there. Default: all.</summary>
    [Parameter(Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmVmCompleter))]
    public VmReference[]? VM { get; set; }

    /// <summary>Main hosts to look on. Default: all connected hosts.</summary>
    [Parameter]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    public KvmHostReference[]? KvmHost { get; set; }

    /// <summary>Writes what happened a second over each interval, again and again, until it is stopped (Ctrl+C).</summary>
    [Parameter(Mandatory = true, ParameterSetName = ContinuousSet)]
    public SwitchParameter Continuous { get; set; }

    /// <summary>With -Continuous: seconds from one look to the next, 0.1 to 3600. Default: 1.</summary>
    [Parameter(ParameterSetName = ContinuousSet)]
    [ValidateRange(0.1, 3600.0)]
    [Duration(InSeconds = true)]
    public double Interval { get; set; } = 1;

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        VmReference[] vms = [.. (VM ?? [new VmReference("*")]).Where(v => ForItem(v.ToString(), v.CheckHost))];
        if (Continuous)
        {
            _watched.AddRange(vms);
        }
        else if (vms.Length > 0)
        {
            Look(vms);
        }
    }

    /// <inheritdoc/>
    protected override void EndProcessing()
    {
        if (!Continuous || _watched.Count == 0)
        {
            return;
        }

        KvmHost[] hosts = Hosts(KvmHost, _watched);
        var sampler = new PagingSampler((host, name) => _watched.Any(v => v.Matches(host, name)));
        HashSet<string> met = [];
        bool complete = true;
        do
        {
            ForHosts(
                hosts,
                (host, stop) => host.Connection.ListWorkersAsync(stop),
                (host, workers) => WriteObject(sampler.Take(host, workers, met).Select(t => t.Since).OfType<VmRemotePagingSample>().ToArray(), enumerateCollection: true),
                () => complete = false);
            foreach (VmReference vm in _watched.Where(v => complete && !v.IsPattern && !met.Contains(v.ToString(), StringComparer.OrdinalIgnoreCase)))
            {
                WriteError(NotFound(vm));
            }

            // Said once; and who is not there at first may come yet.
            complete = false;
        }
        while (hosts.Length > 0 && (met.Count > 0 || _watched.Any(v => v.IsPattern)) && Pause(TimeSpan.FromSeconds(Interval)));
    }

    private static ErrorRecord NotFound(VmReference vm) => Errors.Record(Failure.MigrationNotFound($"of a VM '{vm}'"), vm.ToString());

    private void Look(VmReference[] vms)
    {
        var met = new HashSet<VmReference>();
        bool complete = true;
        KvmHost[] hosts = Hosts(KvmHost, vms);
        ForHosts(
            hosts,
            async (host, stop) => await host.Connection.ListWorkersAsync(stop).ConfigureAwait(false),
            (host, workers) =>
            {
                foreach (WorkerSummary worker in workers.Where(w => w.Spec?.Role == WorkerRole.Main && w.Status?.Paging is not null))
                {
                    VmReference[] matching = [.. vms.Where(v => v.Matches(host, worker.Spec.VmName))];
                    if (matching.Length > 0)
                    {
                        met.UnionWith(matching);
                        WriteObject(new VmRemotePaging(host, worker.Spec, worker.Status.Paging, worker.Running));
                    }
                }
            },
            () => complete = false);
        foreach (VmReference vm in vms.Where(v => complete && hosts.Length > 0 && !met.Contains(v) && !v.IsPattern))
        {
            WriteError(NotFound(vm));
        }
    }
}
