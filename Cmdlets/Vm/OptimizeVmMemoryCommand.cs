using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Optimize-VmMemory: gives the host back what a running guest has freed; the guest needs no balloon driver and does not notice.</summary>
[Cmdlet(VerbsCommon.Optimize, "VmMemory", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Low)]
[OutputType(typeof(VmMemoryOptimization))]
public sealed class OptimizeVmMemoryCommand : FCtransCmdlet
{
    private const int LongestIntervalSeconds = 3600;

    /// <summary>VMs, or names of VMs on connected hosts.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [ValidateNotNull]
    [ArgumentCompleter(typeof(KvmVmCompleter))]
    public VmReference[] VM { get; set; } = [];

    /// <summary>
    /// Goes on until it is stopped (Ctrl+C), writing what each turn gave back. Only memory that was free at the last turn too is taken.
    /// Takes one VM.
    /// </summary>
    [Parameter]
    public SwitchParameter Continuous { get; set; }

    /// <summary>Seconds from one turn to the next, 0.1 to 3600. Default: 5.</summary>
    [Parameter]
    [ValidateRange(0.1, LongestIntervalSeconds)]
    public double Interval { get; set; } = 5;

    /// <summary>At most this many bytes of memory a second, such as 500MB. Default: no limit.</summary>
    [Parameter]
    [ValidateRange(1L, long.MaxValue)]
    public long MaxRate { get; set; }

    /// <summary>At most this part of one of the host's processors, in percent. Default: 100, or 10 with -Continuous.</summary>
    [Parameter]
    [ValidateRange(1, 100)]
    public int MaxProcessorPercent { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        foreach (VmReference reference in VM)
        {
            ForItem(reference.ToString(), () => Optimize(reference));
        }
    }

    private void Optimize(VmReference reference)
    {
        KvmVm vm = Await(reference.ResolveAsync);
        var request = new OptimizeMemoryRequest
        {
            Vm = vm.Name,
            BytesPerSecond = (ulong)MaxRate,
            IntervalMilliseconds = (int)(Interval * 1000),
            ProcessorPercent = MaxProcessorPercent > 0 ? MaxProcessorPercent : Continuous ? 10 : 100,
        };
        bool asked = MyInvocation.BoundParameters.TryGetValue("WhatIf", out object? whatIf) && whatIf is SwitchParameter { IsPresent: true };
        if (asked)
        {
            // What it would free has to be looked up; nothing is changed by that.
            request.WhatIf = true;
            Run(vm, request);
        }

        if (ShouldProcess(vm.Name, $"Give back the guest's free memory to {vm.HostName}"))
        {
            request.Continuous = Continuous;
            Run(vm, request);
        }
    }

    private void Run(KvmVm vm, OptimizeMemoryRequest request) => Await(async (post, stop) =>
    {
        await foreach (OptimizedMemory turn in vm.KvmHost.Connection.OptimizeMemoryAsync(request, stop).ConfigureAwait(false))
        {
            post(() => WriteObject(new VmMemoryOptimization(vm, turn)));
        }

        return true;
    });
}
