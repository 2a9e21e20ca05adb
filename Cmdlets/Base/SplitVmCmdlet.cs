using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>What cmdlets share that change split VMs: finding the workers that page them.</summary>
public abstract class SplitVmCmdlet : FCtransCmdlet
{
    /// <summary>Split VMs (from Get-VmRemotePaging or Get-KvmVm), or their names with wildcards; or main hosts: all split VMs there.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [ValidateNotNull]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmVmCompleter))]
    public VmReference[] VM { get; set; } = [];

    /// <summary>Main hosts to look on. Default: all connected hosts.</summary>
    [Parameter]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    public KvmHostReference[]? KvmHost { get; set; }

    /// <summary>Write the VM's remote paging as it is then.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        foreach (VmReference reference in VM)
        {
            (KvmHost Host, WorkerSummary Worker)[] found = [];
            ForItem(reference.ToString(), () => found = FindMainWorkers(reference));
            foreach ((KvmHost main, WorkerSummary worker) in found)
            {
                ForItem(worker.Spec.VmName, () => Change(main, worker));
            }
        }
    }

    /// <summary>Does what the cmdlet is for.</summary>
    /// <param name="main">The VM's main host.</param>
    /// <param name="worker">The worker there.</param>
    private protected abstract void Change(KvmHost main, WorkerSummary worker);

    private protected static WorkerConnection Connect(KvmHost main, WorkerSummary worker) =>
        main.Connection.ConnectWorker(worker.Spec.SplitId, WorkerRole.Main, worker.Spec.VmName);

    /// <summary>The main workers of the VMs; none when there is none, after an error that says so unless there were wildcards.</summary>
    private (KvmHost Host, WorkerSummary Worker)[] FindMainWorkers(VmReference vm)
    {
        KvmHost[] hosts = Hosts(KvmHost, [vm]);
        var found = new List<(KvmHost Host, WorkerSummary Worker)>();
        bool complete = hosts.Length > 0;
        ForHosts(
            hosts,
            async (host, stop) => await host.Connection.ListWorkersAsync(stop).ConfigureAwait(false),
            (host, workers) => found.AddRange(workers.Where(w => w.Spec?.Role == WorkerRole.Main && w.Running).Select(w => (host, w))),
            () => complete = false);
        (KvmHost Host, WorkerSummary Worker)[] meant = vm.Pick(found, f => f.Worker.Spec.VmName, (f, host) => f.Host.Connection == host.Connection);
        if (meant.Length == 0 && complete && !vm.IsPattern)
        {
            WriteError(Errors.Record(Failure.MigrationNotFound($"of a VM '{vm}'"), vm.ToString()));
        }

        // A VM may have been split before: the newest is meant.
        return [.. meant.GroupBy(f => f.Worker.Spec.VmName).Select(g => g.MaxBy(f => f.Worker.Spec.StartedUnixMilliseconds))];
    }
}
