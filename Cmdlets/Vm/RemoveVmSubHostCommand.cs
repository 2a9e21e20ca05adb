using System.Management.Automation;
using System.Management.Automation.Host;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Remove-VmSubHost: takes a sub-host from split VMs while they run. Its memory goes to the other hosts first.</summary>
[Cmdlet(VerbsCommon.Remove, "VmSubHost", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(void), typeof(VmRemotePaging), typeof(VmJob))]
public sealed class RemoveVmSubHostCommand : SplitVmCmdlet
{
    private const int Activity = 4400;

    private static readonly TimeSpan s_poll = TimeSpan.FromMilliseconds(250);

    private bool _yesToAll;
    private bool _noToAll;

    /// <summary>The sub-host, by the name that Get-VmRemotePaging shows. It need not be connected.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(SubHostCompleter))]
    public string SubHost { get; set; } = "";

    /// <summary>
    /// The host is gone for good. What only it had is lost: the guest gets a memory error where it touches it. Asks first, as with
    /// high impact; a script says -Confirm:$false.
    /// </summary>
    [Parameter]
    public SwitchParameter Lost { get; set; }

    /// <summary>Do not wait until the host has left: give a job for each VM.</summary>
    [Parameter]
    public SwitchParameter AsJob { get; set; }

    private protected override void Change(KvmHost main, WorkerSummary worker)
    {
        string vm = worker.Spec.VmName;
        if (!ShouldProcess(vm, Lost ? $"Give up sub-host {SubHost} and the memory that only it has" : $"Remove sub-host {SubHost}")
            || (Lost && !MayLose(vm)))
        {
            return;
        }

        async Task<VmRemotePaging> RemoveAsync(Action<ProgressRecord> progress, CancellationToken stop)
        {
            WorkerStatus status = await RemoveSubHostAsync(Connect(main, worker), SubHost, Lost, progress, stop).ConfigureAwait(false);
            return new VmRemotePaging(main, worker.Spec, status.Paging, running: true);
        }

        if (AsJob)
        {
            var job = new VmJob(MyInvocation.Line ?? "", $"Remove {SubHost} from {vm}", vm, main.Name, async (write, progress, stop) =>
                write(await RemoveAsync(progress, stop).ConfigureAwait(false)));
            job.Start(JobRepository);
            WriteObject(job);
            return;
        }

        VmRemotePaging paging = Await((post, stop) => RemoveAsync(record => post(() => WriteProgress(record)), stop));
        WriteVerbose($"{vm}: sub-host {SubHost} has left.");
        if (PassThru)
        {
            WriteObject(paging);
        }
    }

    /// <summary>
    /// An attribute has one impact for the whole cmdlet; here it depends. Asks unless -Confirm was given either way (with it,
    /// ShouldProcess has asked) or the user's preference is never to be asked.
    /// </summary>
    private bool MayLose(string vm)
    {
        if (MyInvocation.BoundParameters.ContainsKey("Confirm")
            || string.Equals($"{GetVariableValue("ConfirmPreference")}", nameof(ConfirmImpact.None), StringComparison.OrdinalIgnoreCase))
        {
            return true;
        }

        try
        {
            return ShouldContinue(
                $"The memory of {vm} that only {SubHost} has will be lost for good. Is the host gone?", $"Give up sub-host {SubHost}",
                ref _yesToAll, ref _noToAll);
        }
        catch (Exception e) when (e is PSInvalidOperationException or HostException)
        {
            throw Failure.ConfirmationNeeded(SubHost, vm, e);
        }
    }

    /// <summary>Until it has left. Stopped in between, the host goes on leaving.</summary>
    private static async Task<WorkerStatus> RemoveSubHostAsync(
        WorkerConnection connection, string host, bool lost, Action<ProgressRecord> progress, CancellationToken stop)
    {
        WorkerStatus status = await connection.RemoveSubHostAsync(host, lost, stop).ConfigureAwait(false);
        int index = status.Paging.SubHosts.ToList().FindIndex(h => string.Equals(h, host, StringComparison.OrdinalIgnoreCase));
        ulong first = Math.Max(1, Left(status));
        using var writer = new ProgressWriter(progress, Activity, $"Removing sub-host {host}");
        while (status.Paging.SubHostStates.ElementAtOrDefault(index) == "leaving")
        {
            ulong left = Left(status);
            double gone = first - (double)Math.Min(left, first);
            writer.Tell($"{Loader.Display.Bytes(left * 4096.0)} to go", gone / first, gone > 0 ? left / gone * writer.Seconds : null);
            await Task.Delay(s_poll, stop).ConfigureAwait(false);
            status = await connection.GetStatusAsync(stop).ConfigureAwait(false);
        }

        return status;

        ulong Left(WorkerStatus of) => of.Paging.RemotePages.ElementAtOrDefault(index);
    }
}
