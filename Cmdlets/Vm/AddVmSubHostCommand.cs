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
    /// <c>@{ KvmHost = 'sub3'; Memory = 64GB }</c>.
    /// </summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    public KvmHostReference[] SubHost { get; set; } = [];

    /// <inheritdoc/>
    private protected override void Change(KvmHost main, WorkerSummary worker)
    {
        WorkerSpec spec = worker.Spec.Clone();
        ulong size = spec.RamBlocks.Aggregate(0UL, (sum, b) => sum + b.SizeBytes);
        WorkerStatus? last = null;
        foreach (KvmHostReference reference in SubHost)
        {
            KvmHost host = reference.Resolve();
            ulong limit = reference.Limit?.ToBytes(size) ?? 0;
            if (!ShouldProcess(spec.VmName, $"Add sub-host {host.Name}" + (limit > 0 ? $" for up to {Loader.Display.Bytes(limit)}" : "")))
            {
                continue;
            }

            (last, Peer peer) = Await(stop => new SubHostAddition(main.Connection, spec, host.Connection, limit).RunAsync(stop));
            peer.SubIndex = (uint)spec.Peers.Count(p => p.Role == WorkerRole.Sub);
            spec.Peers.Add(peer);
            WriteVerbose($"{spec.VmName}: {host.Name} is a sub-host.");
        }

        if (PassThru && last is not null)
        {
            WriteObject(new VmRemotePaging(main, spec, last.Paging, running: true));
        }
    }
}
