using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>What the cmdlets share that plan a split migration, to do it or to say how it would go.</summary>
public abstract class SplitPlanCmdlet : VmCmdlet
{
    /// <summary>The host that is to run the VM's processors.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipelineByPropertyName = true)]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    [ValidateNotNull]
    public KvmHostReference MainHost { get; set; } = null!;

    /// <summary>
    /// The hosts that are to hold the rest of its memory; with a limit: <c>@{ KvmHost = 'sub1'; Memory = 64GB }</c>. Of the hosts that a name
    /// with wildcards matches, the main host and the source are left out.
    /// </summary>
    [Parameter(Mandatory = true, Position = 2, ValueFromPipelineByPropertyName = true)]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    [ValidateNotNull]
    [SupportsWildcards]
    public KvmHostReference[] SubHost { get; set; } = [];

    /// <summary>At most this much of the guest's memory stays on the main host: bytes (8GB) or a share of it (25%).</summary>
    [Parameter(Mandatory = true, Position = 3, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNull]
    public MemorySize MainMemory { get; set; } = null!;

    /// <summary>Leave out memory that the guest does not use. Default: yes; -TrackUnused:$false sends everything.</summary>
    [Parameter]
    public SwitchParameter TrackUnused { get; set; } = true;

    /// <summary>
    /// The command line for the main host's QEMU, the program first. Default: the source's own (the CommandLine of Get-KvmVm). FCtrans
    /// translates memory, sockets and the PID file in it; the devices that the guest sees have to be the same. Not for domains of libvirt.
    /// </summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string[] QemuCommandLine { get; set; } = [];

    /// <summary>
    /// At how many sub-hosts each page that is not on the main host is to be: 1 (default) or 2. With 2 a sub-host may die and nothing is lost.
    /// The second copies are made in the background once the VM runs on the main host.
    /// </summary>
    [Parameter]
    [ValidateRange(1, 2)]
    public int Copies { get; set; } = 1;

    /// <summary>What the parameters of this class ask for.</summary>
    /// <exception cref="FCtransException">HostNotConnected, MainMemoryInvalid.</exception>
    private protected SplitMigrationRequest Request(KvmVm vm)
    {
        KvmHost main = MainHost.Resolve();
        (KvmHost Host, MemorySize? Limit)[] subs = SubHosts(vm.KvmHost, main);
        return new SplitMigrationRequest
        {
            Source = vm.KvmHost.Connection,
            VmName = vm.Name,
            VmProcessId = vm.ProcessId,
            MainHost = main.Connection,
            SubHosts = [.. subs.Select(s => s.Host.Connection)],
            MainMemoryBytes = MainMemory.ToBytes,
            SubHostLimitBytes = [.. subs.Select(s => s.Limit?.ToBytes(vm.MemoryBytes) ?? 0)],
            TrackUnused = TrackUnused,
            Copies = Copies,
            QemuCommandLine = QemuCommandLine,
        };
    }

    /// <summary>The sub-hosts, each with its limit. A host that was named stays, so that naming one twice is found out.</summary>
    private (KvmHost Host, MemorySize? Limit)[] SubHosts(KvmHost source, KvmHost main)
    {
        // By connection: Get-KvmHost may have put a newer object in a host's place.
        HashSet<KvmHostConnection> taken = [source.Connection, main.Connection, .. SubHost.Where(s => !s.IsPattern).Select(s => s.Resolve().Connection)];
        var subs = new List<(KvmHost, MemorySize?)>();
        foreach (KvmHostReference reference in SubHost)
        {
            foreach (KvmHost host in reference.ResolveAll())
            {
                if (!reference.IsPattern || taken.Add(host.Connection))
                {
                    subs.Add((host, reference.Limit));
                }
            }
        }

        return subs.Count > 0 ? [.. subs] : throw Failure.HostNotConnected(string.Join(", ", SubHost.Select(s => s.ToString())));
    }
}
