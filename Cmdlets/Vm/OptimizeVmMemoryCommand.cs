using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Optimize-VmMemory: gives the host back what a running guest has freed; the guest needs no balloon driver and does not notice.</summary>
[Cmdlet(VerbsCommon.Optimize, "VmMemory", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Low)]
[OutputType(typeof(VmMemoryOptimization), typeof(VmJob))]
public sealed class OptimizeVmMemoryCommand : VmCmdlet
{
    private const int LongestIntervalSeconds = 3600;
    private const int Activity = 4500;

    /// <summary>
    /// Goes on until it is stopped (Ctrl+C) or the VM ends, writing what each turn gave back. Only memory that was free at the last turn
    /// too is taken. Several VMs have their turns side by side.
    /// </summary>
    [Parameter]
    public SwitchParameter Continuous { get; set; }

    /// <summary>Seconds from one turn to the next, 0.1 to 3600. Default: 5.</summary>
    [Parameter]
    [ValidateRange(0.1, LongestIntervalSeconds)]
    [Duration(InSeconds = true)]
    public double Interval { get; set; } = 5;

    /// <summary>At most this many bytes of memory a second, such as 500MB. Default: no limit.</summary>
    [Parameter]
    [Alias("MaxRate")]
    [ValidateRange(1L, long.MaxValue)]
    [ByteCount]
    public long MaxBytesPerSecond { get; set; }

    /// <summary>At most this part of one of the host's processors, in percent. Default: 100, or 10 with -Continuous.</summary>
    [Parameter]
    [ValidateRange(1, 100)]
    public int MaxProcessorPercent { get; set; }

    /// <summary>Do not wait: give a job for each VM.</summary>
    [Parameter]
    public SwitchParameter AsJob { get; set; }

    private readonly List<(KvmVm Vm, OptimizeMemoryRequest Request)> _lasting = [];

    /// <inheritdoc/>
    protected override void ProcessRecord() => ForVms(Optimize);

    /// <inheritdoc/>
    protected override void EndProcessing()
    {
        if (_lasting.Count > 0)
        {
            Await(async (post, stop) =>
            {
                await Task.WhenAll(_lasting.Select(one => Task.Run(
                    async () =>
                    {
                        try
                        {
                            await RunAsync(one.Vm, one.Request, turn => post(() => WriteObject(turn)), stop).ConfigureAwait(false);
                        }
                        catch (FCtransException e)
                        {
                            post(() => WriteError(Errors.Record(e, one.Vm.Name)));
                        }
                    },
                    stop))).ConfigureAwait(false);
                return true;
            });
        }
    }

    /// <summary>Whether ShouldProcess only says what it would do: by the parameter, else by $WhatIfPreference.</summary>
    private bool IsWhatIf => MyInvocation.BoundParameters.TryGetValue("WhatIf", out object? given)
        ? LanguagePrimitives.IsTrue(given) : LanguagePrimitives.IsTrue(GetVariableValue("WhatIfPreference"));

    private void Optimize(KvmVm vm)
    {
        var request = new OptimizeMemoryRequest
        {
            Vm = vm.Name,
            BytesPerSecond = (ulong)MaxBytesPerSecond,
            IntervalMilliseconds = (int)(Interval * 1000),
            ProcessorPercent = MaxProcessorPercent > 0 ? MaxProcessorPercent : Continuous ? 10 : 100,
        };
        if (IsWhatIf)
        {
            // What it would free has to be looked up; nothing is changed by that.
            request.WhatIf = true;
            Run(vm, request);
        }

        if (!ShouldProcess(vm.Name, $"Give back the guest's free memory to {vm.HostName}"))
        {
            return;
        }

        request.Continuous = Continuous;
        if (AsJob)
        {
            var job = new VmJob(MyInvocation.Line ?? "", $"Optimize {vm.Name}", vm.Name, vm.HostName, (write, _, stop) => RunAsync(vm, request, write, stop));
            job.Start(JobRepository);
            WriteObject(job);
        }
        else if (Continuous)
        {
            _lasting.Add((vm, request));
        }
        else
        {
            Run(vm, request);
        }
    }

    private void Run(KvmVm vm, OptimizeMemoryRequest request) => Await(async (post, stop) =>
    {
        // The host says how much it was when it is done, and nothing before.
        using var progress = new ProgressWriter(record => post(() => WriteProgress(record)), Activity, $"Optimizing the memory of {vm.Name}");
        progress.Tell(request.WhatIf
            ? $"{vm.HostName} counts what the guest has freed" : $"{vm.HostName} takes back what the guest has freed, of {Loader.Display.Bytes(vm.MemoryBytes)}");
        await RunAsync(vm, request, turn => post(() => WriteObject(turn)), stop).ConfigureAwait(false);
        return true;
    });

    private static async Task RunAsync(KvmVm vm, OptimizeMemoryRequest request, Action<object> write, CancellationToken stop)
    {
        await foreach (OptimizedMemory turn in vm.KvmHost.Connection.OptimizeMemoryAsync(request, stop).ConfigureAwait(false))
        {
            write(new VmMemoryOptimization(vm, turn));
        }
    }
}
