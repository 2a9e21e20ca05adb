using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>
/// Start-SplitMigration: moves a running VM to a main host and sub-hosts, and waits for the end. Ctrl+C gives it up and leaves
/// the VM running where it was; ending PowerShell does not stop it.
/// </summary>
[Cmdlet(VerbsLifecycle.Start, "SplitMigration", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(SplitMigration), typeof(SplitMigrationJob))]
public sealed class StartSplitMigrationCommand : SplitPlanCmdlet
{
    /// <summary>The standstill that is aimed at: seconds (0.1), or with a unit ('100ms'). Default: 300 ms.</summary>
    [Parameter]
    [ValidateNotNull]
    [Duration]
    public TimeSpan MaxDowntime { get; set; } = TimeSpan.FromMilliseconds(300);

    /// <summary>After so many rounds the switch-over comes, however much is left.</summary>
    [Parameter]
    [ValidateRange(1, 1000)]
    public int MaxRounds { get; set; } = 30;

    /// <summary>At most this many bytes a second, to all hosts together, such as 500MB. Default: no limit.</summary>
    [Parameter]
    [Alias("BandwidthLimitBytesPerSecond")]
    [ValidateRange(0, long.MaxValue)]
    [ByteCount]
    public long MaxBytesPerSecond { get; set; }

    /// <summary>
    /// Hybrid (default): memory that the guest writes faster than it can be sent is fetched from the source after the switch-over.
    /// PreCopy: all is sent before. PostCopy: the switch-over comes at once, and all is fetched after it.
    /// </summary>
    [Parameter]
    [ValidateSet(nameof(MigrationMode.Hybrid), nameof(MigrationMode.PreCopy), nameof(MigrationMode.PostCopy))]
    public string Mode { get; set; } = nameof(MigrationMode.Hybrid);

    /// <summary>Tls (default): guest memory is encrypted on its way and hosts prove who they are. None: only for a network that nobody else is on.</summary>
    [Parameter]
    [ValidateSet("Tls", "None")]
    public string DataPlaneSecurity { get; set; } = "Tls";

    /// <summary>
    /// PreCopy: give up after this time. Hybrid: switch over after it, however much is left. Seconds (600), a number with a unit ('10m'), or
    /// hours, minutes and seconds (0:10:00). Default: never.
    /// </summary>
    [Parameter]
    [Duration]
    public TimeSpan? Timeout { get; set; }

    /// <summary>For a persistent domain of libvirt: its definition goes to the main host's libvirt, and the source's forgets it.</summary>
    [Parameter]
    public SwitchParameter MovePersistentDomain { get; set; }

    /// <summary>Do not wait: give a job.</summary>
    [Parameter]
    public SwitchParameter AsJob { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        CheckTimes();
        foreach (VmReference reference in VM)
        {
            foreach (KvmVm vm in OrEnd(reference.ToString(), () => Await(reference.ResolveAllAsync)))
            {
                _ = OrEnd(vm.Name, () => Move(vm));
            }
        }
    }

    /// <summary>Moves one VM, or begins to.</summary>
    /// <returns>Whether it was to be moved.</returns>
    private bool Move(KvmVm vm)
    {
        SplitMigrationRequest request = RequestFor(vm);
        SplitMigrationPlan plan = Await(stop => SplitMigrationPlan.MakeAsync(request, stop));
        string action = $"Split migration from {vm.HostName} to main host {request.MainHost.Name} "
            + $"({Loader.Display.Bytes(plan.MainMemoryBytes)}) and sub-hosts {string.Join(", ", request.SubHosts.Select(s => s.Name))}";
        if (!ShouldProcess(vm.Name, action))
        {
            return false;
        }

        var task = new SplitMigrationTask(vm.KvmHost, plan);
        if (AsJob)
        {
            var job = new SplitMigrationJob(MyInvocation.Line ?? "", task);
            job.Start(JobRepository);
            WriteObject(job);
            return true;
        }

        foreach (string warning in plan.Warnings)
        {
            WriteWarning(warning);
        }

        SplitMigration done = Await((post, stop) => task.RunAsync(record => post(() => WriteProgress(record)), stop));
        WriteVerbose($"{done.VM}: {done.State}: from {done.SourceHost} to {done.MainHost} and {string.Join(", ", done.SubHosts)} in "
            + $"{Loader.Display.Seconds(done.TotalSeconds)}, {done.Rounds.Count} rounds, {Loader.Display.Bytes(done.BytesSent)} sent, "
            + $"stood still {Loader.Display.Seconds(done.DowntimeMilliseconds / 1000)}.");
        WriteObject(done);
        return true;
    }

    /// <summary>Does it; a failure is terminating: a script must not go on as if the VM had been moved.</summary>
    private T OrEnd<T>(string vm, Func<T> part)
    {
        try
        {
            return part();
        }
        catch (FCtransException e)
        {
            ThrowTerminatingError(Errors.Record(e, vm));
            throw;
        }
    }

    private void CheckTimes()
    {
        try
        {
            Duration.Check(nameof(MaxDowntime), MaxDowntime);
            Duration.Check(nameof(Timeout), Timeout);
        }
        catch (FCtransException e)
        {
            ThrowTerminatingError(Errors.Record(e, null));
        }
    }

    private SplitMigrationRequest RequestFor(KvmVm vm) => Request(vm) with
    {
        MovePersistentDomain = MovePersistentDomain,
        MaxDowntime = MaxDowntime,
        MaxRounds = MaxRounds,
        BandwidthLimitBytesPerSecond = (ulong)MaxBytesPerSecond,
        Timeout = Timeout,
        Mode = Enum.Parse<MigrationMode>(Mode, ignoreCase: true),
        Tls = !string.Equals(DataPlaneSecurity, "None", StringComparison.OrdinalIgnoreCase),
    };
}
