using System.Management.Automation;
using System.Management.Automation.Host;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Remove-VmSubHost: takes sub-hosts from split VMs while they run. Their memory goes to the other hosts first.</summary>
[Cmdlet(VerbsCommon.Remove, "VmSubHost", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(void), typeof(VmRemotePaging), typeof(VmJob))]
public sealed class RemoveVmSubHostCommand : SplitVmCmdlet
{
    private const int Activity = 4400;

    private static readonly TimeSpan s_poll = TimeSpan.FromMilliseconds(250);

    private bool _yesToAll;
    private bool _noToAll;

    /// <summary>
    /// The sub-hosts, one after the other, by the names that Get-VmRemotePaging shows, or patterns of them. They need not be connected.
    /// </summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(SubHostCompleter))]
    public string[] SubHost { get; set; } = [];

    /// <summary>
    /// The host is gone for good. What only it had is lost: the guest gets a memory error where it touches it. Asks first, as with
    /// high impact; a script says -Force.
    /// </summary>
    [Parameter]
    public SwitchParameter Lost { get; set; }

    /// <summary>Do not ask whether a host that is to be given up by -Lost is really gone.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <summary>Do not wait until the hosts have left: give a job for each VM.</summary>
    [Parameter]
    public SwitchParameter AsJob { get; set; }

    private protected override void Change(KvmHost main, WorkerSummary worker)
    {
        string vm = worker.Spec.VmName;
        string[] hosts =
        [
            .. SubHostNames.Match(worker, SubHost).Where(host =>
                ShouldProcess(vm, Lost ? $"Give up sub-host {host} and the memory that only it has" : $"Remove sub-host {host}")
                && (!Lost || MayLose(vm, host))),
        ];
        if (hosts.Length == 0)
        {
            return;
        }

        async Task<VmRemotePaging> RemoveAsync(string host, Action<ProgressRecord> progress, CancellationToken stop)
        {
            WorkerStatus status = await RemoveSubHostAsync(Connect(main, worker), host, Lost, progress, stop).ConfigureAwait(false);
            return new VmRemotePaging(main, worker.Spec, status.Paging, running: true);
        }

        if (AsJob)
        {
            var job = new VmJob(MyInvocation.Line ?? "", $"Remove {string.Join(", ", hosts)} from {vm}", vm, main.Name, async (write, progress, stop) =>
            {
                foreach (string host in hosts)
                {
                    write(await RemoveAsync(host, progress, stop).ConfigureAwait(false));
                }
            });
            job.Start(JobRepository);
            WriteObject(job);
            return;
        }

        // One that can't be taken away has its error, and the next has its turn.
        VmRemotePaging? paging = null;
        foreach (string host in hosts)
        {
            ForItem(vm, () =>
            {
                paging = Await((post, stop) => RemoveAsync(host, record => post(() => WriteProgress(record)), stop));
                WriteVerbose($"{vm}: sub-host {host} has left.");
            });
        }

        if (PassThru && paging is not null)
        {
            WriteObject(paging);
        }
    }

    /// <summary>
    /// An attribute has one impact for the whole cmdlet; here it depends. Asks unless -Force was said, -Confirm was given either
    /// way (with it, ShouldProcess has asked) or the user's preference is never to be asked.
    /// </summary>
    private bool MayLose(string vm, string host)
    {
        if (Force || MyInvocation.BoundParameters.ContainsKey("Confirm")
            || string.Equals($"{GetVariableValue("ConfirmPreference")}", nameof(ConfirmImpact.None), StringComparison.OrdinalIgnoreCase))
        {
            return true;
        }

        try
        {
            return ShouldContinue(
                $"The memory of {vm} that only {host} has will be lost for good. Is the host gone?", $"Give up sub-host {host}",
                ref _yesToAll, ref _noToAll);
        }
        catch (Exception e) when (e is PSInvalidOperationException or HostException)
        {
            throw Failure.ConfirmationNeeded(host, vm, e);
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
