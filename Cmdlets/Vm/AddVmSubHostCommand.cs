using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Add-VmSubHost: gives split VMs another sub-host while they run.</summary>
[Cmdlet(VerbsCommon.Add, "VmSubHost", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(void), typeof(VmRemotePaging))]
public sealed class AddVmSubHostCommand : SplitVmCmdlet
{
    /// <summary>
    /// The connected hosts that are to hold memory of the VM from now on, one after the other; with a limit:
    /// <c>@{ KvmHost = 'sub3'; Memory = 64GB }</c>. Of the hosts that a name with wildcards matches, those are left out that have a part in the
    /// split already: the main host, the source and the sub-hosts.
    /// </summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    public KvmHostReference[] SubHost { get; set; } = [];

    /// <inheritdoc/>
    private protected override void Change(KvmHost main, WorkerSummary worker)
    {
        WorkerSpec spec = worker.Spec.Clone();
        ulong size = spec.RamBlocks.Aggregate(0UL, (sum, b) => sum + b.SizeBytes);
        WorkerStatus? last = null;

        // One that can't be added has its error, and the next has its turn.
        foreach (KvmHostReference reference in SubHost)
        {
            KvmHost[] hosts = [];
            ForItem(spec.VmName, () => hosts = [.. reference.ResolveAll().Where(h => !reference.IsPattern || !HasPart(h, main, worker, spec))]);
            foreach (KvmHost host in hosts)
            {
                ForItem(spec.VmName, () => last = Add(main, spec, host, reference.Limit?.ToBytes(size) ?? 0) ?? last);
            }
        }

        if (PassThru && last is not null)
        {
            WriteObject(new VmRemotePaging(main, spec, last.Paging, running: true));
        }
    }

    /// <summary>Whether the host is of this split already. One that has left may come again.</summary>
    /// <param name="spec">As the worker's, and what has been added since.</param>
    private static bool HasPart(KvmHost host, KvmHost main, WorkerSummary worker, WorkerSpec spec) =>
        SplitMigrationPlan.SameHost(host.Connection, main.Connection)
        || SubHostNames.Present(worker).Concat(spec.Peers.Where(p => p.Role == WorkerRole.Source)).Concat(spec.Peers.Skip(worker.Spec.Peers.Count))
            .Any(p => string.Equals(p.Host, host.Name, StringComparison.OrdinalIgnoreCase)
                || (p.Address.Length > 0 && p.Address == host.Connection.DataAddress));

    /// <summary>Adds one host to the VM, and to <paramref name="spec"/>.</summary>
    /// <returns>The main host's state then; null: it was not to be added.</returns>
    private WorkerStatus? Add(KvmHost main, WorkerSpec spec, KvmHost host, ulong limit)
    {
        if (!ShouldProcess(spec.VmName, $"Add sub-host {host.Name}" + (limit > 0 ? $" for up to {Loader.Display.Bytes(limit)}" : "")))
        {
            return null;
        }

        (WorkerStatus status, Peer peer) = Await(stop => new SubHostAddition(main.Connection, spec, host.Connection, limit).RunAsync(stop));
        peer.SubIndex = (uint)spec.Peers.Count(p => p.Role == WorkerRole.Sub);
        spec.Peers.Add(peer);
        WriteVerbose($"{spec.VmName}: {host.Name} is a sub-host.");
        return status;
    }
}
