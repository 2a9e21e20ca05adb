using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Set-VmRemotePaging: changes the remote paging of a split VM while it runs.</summary>
[Cmdlet(VerbsCommon.Set, "VmRemotePaging", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Low)]
[OutputType(typeof(void), typeof(VmRemotePaging))]
public sealed class SetVmRemotePagingCommand : SplitVmCmdlet
{
    /// <summary>How much of the VM's memory may stay on the main host: a size, or a share of it (25%). More than that leaves at once.</summary>
    [Parameter]
    [ValidateNotNull]
    public MemorySize? MainMemory { get; set; }

    /// <summary>Whether memory is fetched, or where it is unused filled with zeros, ahead of a guest that goes through it in order.</summary>
    [Parameter]
    public bool? Prefetch { get; set; }

    /// <summary>Refault (as it is at first): the oldest pages leave, but for those that keep coming back or that the guest's own kernel holds for hot. OldestFirst: simply the oldest.</summary>
    [Parameter]
    public EvictionPolicy? EvictionPolicy { get; set; }

    /// <summary>
    /// At how many sub-hosts each page that is not on the main host is to be: 1 or 2. More copies are made in the background
    /// (ShortBytes of Get-VmRemotePaging says how much is missing); fewer come to be as pages leave anew.
    /// </summary>
    [Parameter]
    [ValidateRange(1, 2)]
    public int? Copies { get; set; }

    /// <inheritdoc/>
    protected override void BeginProcessing()
    {
        if (MainMemory is null && Prefetch is null && EvictionPolicy is null && Copies is null)
        {
            ThrowTerminatingError(Errors.Record(Failure.SettingMissing(), null));
        }
    }

    /// <inheritdoc/>
    private protected override void Change(KvmHost main, WorkerSummary worker)
    {
        var settings = new PagingSettings();
        var changes = new List<string>();
        if (MainMemory is not null)
        {
            settings.MainMemoryBytes = MainMemory.ToBytes(worker.Spec.RamBlocks.Aggregate(0UL, (sum, b) => sum + b.SizeBytes));
            changes.Add($"MainMemory {MainMemory}");
        }

        if (Prefetch is { } prefetch)
        {
            settings.Prefetch = prefetch;
            changes.Add($"Prefetch {prefetch}");
        }

        if (EvictionPolicy is { } policy)
        {
            settings.EvictionPolicy = (Contracts.EvictionPolicy)policy;
            changes.Add($"EvictionPolicy {policy}");
        }

        if (Copies is { } copies)
        {
            settings.Copies = (uint)copies;
            changes.Add($"Copies {copies}");
        }

        if (!ShouldProcess(worker.Spec.VmName, "Set " + string.Join(", ", changes)))
        {
            return;
        }

        WorkerStatus status = Await(stop => Connect(main, worker).SetPagingAsync(settings, stop));
        if (PassThru)
        {
            WriteObject(new VmRemotePaging(main, worker.Spec, status.Paging, running: true));
        }
    }
}
