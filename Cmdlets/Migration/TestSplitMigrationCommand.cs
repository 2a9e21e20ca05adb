using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>Test-SplitMigration: checks every precondition of a split migration on every host and says what would go where; changes nothing.</summary>
[Cmdlet(VerbsDiagnostic.Test, "SplitMigration")]
[OutputType(typeof(SplitMigrationTest))]
public sealed class TestSplitMigrationCommand : FCtransCmdlet
{
    /// <summary>The VM, or the name of a VM on a connected host.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [ValidateNotNull]
    public VmReference VM { get; set; } = null!;

    /// <summary>The host that is to run the VM's processors.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    [ValidateNotNull]
    public KvmHostReference MainHost { get; set; } = null!;

    /// <summary>The hosts that are to hold the rest of its memory; with a limit: <c>@{ KvmHost = 'sub1'; Memory = 64GB }</c>.</summary>
    [Parameter(Mandatory = true, Position = 2)]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    [ValidateNotNull]
    public KvmHostReference[] SubHost { get; set; } = [];

    /// <summary>At most this much of the guest's memory stays on the main host: bytes (8GB) or a share of it (25%).</summary>
    [Parameter(Mandatory = true, Position = 3)]
    [ValidateNotNull]
    public MemorySize MainMemory { get; set; } = null!;

    /// <summary>Leave out memory that the guest does not use. Default: yes.</summary>
    [Parameter]
    public SwitchParameter TrackUnused { get; set; } = true;

    /// <summary>
    /// The command line for the main host's QEMU, the program first. Default: the source's own (the CommandLine of Get-KvmVm). FCtrans
    /// translates memory, sockets and the PID file in it; the devices that the guest sees have to be the same. Not for domains of libvirt.
    /// </summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string[] QemuCommandLine { get; set; } = [];

    /// <summary>Bytes a second, to all hosts together: what the time is reckoned with. Default: a link of 10 Gbit/s.</summary>
    [Parameter]
    [ValidateRange(0, long.MaxValue)]
    public long BandwidthLimitBytesPerSecond { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord() => ForItem(VM.ToString(), () =>
    {
        KvmHost main = MainHost.Resolve();
        KvmHost[] subs = [.. SubHost.Select(s => s.Resolve())];
        WriteObject(Await(async stop =>
        {
            KvmVm vm = await VM.ResolveAsync(stop).ConfigureAwait(false);
            return new SplitMigrationTest(await SplitMigrationForecast.MakeAsync(
                new SplitMigrationRequest
                {
                    Source = vm.KvmHost.Connection,
                    VmName = vm.Name,
                    VmProcessId = vm.ProcessId,
                    MainHost = main.Connection,
                    SubHosts = [.. subs.Select(s => s.Connection)],
                    MainMemoryBytes = MainMemory.ToBytes,
                    SubHostLimitBytes = [.. SubHost.Select(s => s.Limit?.ToBytes(vm.MemoryBytes) ?? 0)],
                    TrackUnused = TrackUnused,
                    QemuCommandLine = QemuCommandLine,
                    BandwidthLimitBytesPerSecond = (ulong)BandwidthLimitBytesPerSecond,
                },
                stop).ConfigureAwait(false));
        }));
    });
}
