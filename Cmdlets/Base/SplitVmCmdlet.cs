using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>What cmdlets share that change a split VM: finding the worker that pages it.</summary>
public abstract class SplitVmCmdlet : FCtransCmdlet
{
    /// <summary>The main worker of the VM; null when there is none, after an error that says so.</summary>
    private protected (KvmHost Host, WorkerSummary Worker)? FindMainWorker(string vm, KvmHostReference[]? on)
    {
        KvmHost[] hosts = Hosts(on);
        var found = new List<(KvmHost Host, WorkerSummary Worker)>();
        bool complete = hosts.Length > 0;
        ForHosts(
            hosts,
            async (host, stop) => await host.Connection.ListWorkersAsync(stop).ConfigureAwait(false),
            (host, workers) => found.AddRange(workers
                .Where(w => w.Spec?.Role == WorkerRole.Main && w.Spec.VmName == vm && w.Running)
                .Select(w => (host, w))),
            () => complete = false);
        if (found.Count > 0)
        {
            // A VM may have been split before: the newest is meant.
            return found.MaxBy(f => f.Worker.Spec.StartedUnixMilliseconds);
        }

        if (complete)
        {
            WriteError(Errors.Record(Failure.MigrationNotFound($"of a VM '{vm}'"), vm));
        }

        return null;
    }
}
