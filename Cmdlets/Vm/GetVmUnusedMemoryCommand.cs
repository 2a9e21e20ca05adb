using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Get-VmUnusedMemory: how much of a VM's memory its guest does not use, seen from outside.</summary>
[Cmdlet(VerbsCommon.Get, "VmUnusedMemory", DefaultParameterSetName = OnceSet)]
[OutputType(typeof(VmUnusedMemory))]
public sealed class GetVmUnusedMemoryCommand : VmCmdlet
{
    private const string OnceSet = "Once";
    private const string ContinuousSet = "Continuous";

    /// <summary>Looks again and again until it is stopped (Ctrl+C) or the VM ends. Several VMs are looked at side by side.</summary>
    [Parameter(Mandatory = true, ParameterSetName = ContinuousSet)]
    public SwitchParameter Continuous { get; set; }

    /// <summary>With -Continuous: seconds from one look to the next, 0.1 to 3600. Default: 5.</summary>
    [Parameter(ParameterSetName = ContinuousSet)]
    [ValidateRange(0.1, 3600.0)]
    [Duration(InSeconds = true)]
    public double Interval { get; set; } = 5;

    /// <summary>With -Continuous: each object lists the memory that has become something else since the one before.</summary>
    [Parameter(ParameterSetName = ContinuousSet)]
    public SwitchParameter IncludeChanges { get; set; }

    private readonly List<KvmVm> _watched = [];

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        if (Continuous)
        {
            ForVms(_watched.Add);
            return;
        }

        ForVms(vm => WriteObject(new VmUnusedMemory(
            vm, Await(stop => vm.KvmHost.Connection.GetUnusedMemoryAsync(vm.Name, stop)))));
    }

    /// <inheritdoc/>
    protected override void EndProcessing()
    {
        if (_watched.Count > 0)
        {
            Await(async (post, stop) =>
            {
                await Task.WhenAll(_watched.Select(vm => Task.Run(() => WatchAsync(vm, post, stop), stop))).ConfigureAwait(false);
                return true;
            });
        }
    }

    private async Task WatchAsync(KvmVm vm, Action<Action> post, CancellationToken stop)
    {
        try
        {
            var request = new WatchUnusedMemoryRequest
            {
                Vm = vm.Name,
                IntervalMilliseconds = (int)(Interval * 1000),
                WithChanges = IncludeChanges,
            };
            await foreach (UnusedMemory look in vm.KvmHost.Connection.WatchUnusedMemoryAsync(request, stop).ConfigureAwait(false))
            {
                post(() => WriteObject(new VmUnusedMemory(vm, look)));
            }
        }
        catch (FCtransException e)
        {
            post(() => WriteError(Errors.Record(e, vm.Name)));
        }
    }
}
