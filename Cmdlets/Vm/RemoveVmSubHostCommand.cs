using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Remove-VmSubHost: takes a sub-host from a split VM while it runs. Its memory goes to the other hosts first.</summary>
[Cmdlet(VerbsCommon.Remove, "VmSubHost", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.High)]
[OutputType(typeof(VmRemotePaging))]
public sealed class RemoveVmSubHostCommand : SplitVmCmdlet
{
    private static readonly TimeSpan s_poll = TimeSpan.FromMilliseconds(250);

    /// <summary>The split VM (from Get-VmRemotePaging or Get-KvmVm), or its name.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [ValidateNotNull]
    public VmReference VM { get; set; } = null!;

    /// <summary>The sub-host, by the name that Get-VmRemotePaging shows. It need not be connected.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ValidateNotNullOrEmpty]
    public string SubHost { get; set; } = "";

    /// <summary>The host is gone for good. What only it had is lost: the guest gets a memory error where it touches it.</summary>
    [Parameter]
    public SwitchParameter Lost { get; set; }

    /// <summary>Main hosts to look on. Default: all connected hosts.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    public KvmHostReference[]? KvmHost { get; set; }

    /// <summary>Write the VM's remote paging as it is then.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        if (FindMainWorker(VM.ToString(), KvmHost) is not var (main, worker)
            || !ShouldProcess(worker.Spec.VmName, Lost ? $"Give up sub-host {SubHost} and the memory that only it has" : $"Remove sub-host {SubHost}"))
        {
            return;
        }

        ForItem(VM.ToString(), () =>
        {
            WorkerConnection connection = main.Connection.ConnectWorker(worker.Spec.SplitId, WorkerRole.Main, worker.Spec.VmName);
            WorkerStatus status = Await((post, stop) => RemoveAsync(connection, post, stop));
            if (PassThru)
            {
                WriteObject(new VmRemotePaging(main, worker.Spec, status.Paging, running: true));
            }
        });
    }

    /// <summary>Until it has left. Stopped in between, the host goes on leaving.</summary>
    private async Task<WorkerStatus> RemoveAsync(WorkerConnection connection, Action<Action> post, CancellationToken stop)
    {
        WorkerStatus status = await connection.RemoveSubHostAsync(SubHost, Lost, stop).ConfigureAwait(false);
        int index = status.Paging.SubHosts.ToList().FindIndex(h => string.Equals(h, SubHost, StringComparison.OrdinalIgnoreCase));
        ulong first = Math.Max(1, Left(status));
        while (status.Paging.SubHostStates.ElementAtOrDefault(index) == "leaving")
        {
            ulong left = Left(status);
            post(() => WriteProgress(new ProgressRecord(1, $"Removing sub-host {SubHost}", $"{left >> 8} MiB to go")
            {
                PercentComplete = (int)(100 - (Math.Min(left, first) * 100 / first)),
            }));
            await Task.Delay(s_poll, stop).ConfigureAwait(false);
            status = await connection.GetStatusAsync(stop).ConfigureAwait(false);
        }

        return status;

        ulong Left(WorkerStatus of) => of.Paging.RemotePages.ElementAtOrDefault(index);
    }
}
