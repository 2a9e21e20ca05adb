using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Get-VmRemotePaging: the remote paging of split VMs, from their main hosts.</summary>
[Cmdlet(VerbsCommon.Get, "VmRemotePaging", DefaultParameterSetName = OnceSet)]
[OutputType(typeof(VmRemotePaging), ParameterSetName = [OnceSet])]
[OutputType(typeof(VmRemotePagingSample), ParameterSetName = [ContinuousSet])]
public sealed class GetVmRemotePagingCommand : FCtransCmdlet
{
    private const string OnceSet = "Once";
    private const string ContinuousSet = "Continuous";

    private readonly List<string> _watched = [];

    /// <summary>VMs (also as they were before their migration), or names of VMs with wildcards. Default: all.</summary>
    [Parameter(Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmVmCompleter))]
    public VmReference[]? VM { get; set; }

    /// <summary>Main hosts to look on. Default: all connected hosts.</summary>
    [Parameter]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    public KvmHostReference[]? KvmHost { get; set; }

    /// <summary>Writes what happened a second over each interval, again and again, until it is stopped (Ctrl+C).</summary>
    [Parameter(Mandatory = true, ParameterSetName = ContinuousSet)]
    public SwitchParameter Continuous { get; set; }

    /// <summary>With -Continuous: seconds from one look to the next, 0.1 to 3600. Default: 1.</summary>
    [Parameter(ParameterSetName = ContinuousSet)]
    [ValidateRange(0.1, 3600.0)]
    public double Interval { get; set; } = 1;

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        string[] names = VM is null ? ["*"] : [.. VM.Select(v => v.ToString())];
        if (Continuous)
        {
            _watched.AddRange(names);
        }
        else
        {
            Look(names);
        }
    }

    /// <inheritdoc/>
    protected override void EndProcessing()
    {
        if (!Continuous)
        {
            return;
        }

        KvmHost[] hosts = Hosts(KvmHost);
        WildcardPattern[] patterns = [.. _watched.Select(n => new WildcardPattern(n, WildcardOptions.IgnoreCase))];
        var sampler = new PagingSampler(name => patterns.Any(p => p.IsMatch(name)));
        HashSet<string> met = [];
        bool complete = true;
        do
        {
            ForHosts(
                hosts,
                (host, stop) => host.Connection.ListWorkersAsync(stop),
                (host, workers) => WriteObject(sampler.Take(host, workers, met).ToArray(), enumerateCollection: true),
                () => complete = false);
            foreach (string name in _watched.Where(n => complete && !WildcardPattern.ContainsWildcardCharacters(n) && !met.Contains(n, StringComparer.OrdinalIgnoreCase)))
            {
                WriteError(NotFound(name));
            }

            // Said once; and who is not there at first may come yet.
            complete = false;
        }
        while (hosts.Length > 0 && (met.Count > 0 || _watched.Any(WildcardPattern.ContainsWildcardCharacters)) && Pause(TimeSpan.FromSeconds(Interval)));
    }

    private static ErrorRecord NotFound(string name) => Errors.Record(Failure.MigrationNotFound($"of a VM '{name}'"), name);

    private void Look(string[] names)
    {
        var patterns = names.Select(n => (Text: n, Pattern: new WildcardPattern(n, WildcardOptions.IgnoreCase))).ToArray();
        var met = new HashSet<string>();
        bool complete = true;
        KvmHost[] hosts = Hosts(KvmHost);
        ForHosts(
            hosts,
            async (host, stop) => await host.Connection.ListWorkersAsync(stop).ConfigureAwait(false),
            (host, workers) =>
            {
                foreach (WorkerSummary worker in workers.Where(w => w.Spec?.Role == WorkerRole.Main && w.Status?.Paging is not null))
                {
                    string[] matching = [.. patterns.Where(p => p.Pattern.IsMatch(worker.Spec.VmName)).Select(p => p.Text)];
                    if (matching.Length > 0)
                    {
                        met.UnionWith(matching);
                        WriteObject(new VmRemotePaging(host, worker.Spec, worker.Status.Paging, worker.Running));
                    }
                }
            },
            () => complete = false);
        foreach (string name in names.Where(n => complete && hosts.Length > 0 && !met.Contains(n) && !WildcardPattern.ContainsWildcardCharacters(n)))
        {
            WriteError(NotFound(name));
        }
    }
}
