using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Get-VmRemotePaging: the remote paging of split VMs, from their main hosts.</summary>
[Cmdlet(VerbsCommon.Get, "VmRemotePaging")]
[OutputType(typeof(VmRemotePaging))]
public sealed class GetVmRemotePagingCommand : FCtransCmdlet
{
    /// <summary>VMs (also as they were before their migration), or names of VMs with wildcards. Default: all.</summary>
    [Parameter(Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmVmCompleter))]
    public VmReference[]? VM { get; set; }

    /// <summary>Main hosts to look on. Default: all connected hosts.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    public KvmHostReference[]? KvmHost { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        string[] names = VM is null ? ["*"] : [.. VM.Select(v => v.ToString())];
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
            WriteError(Errors.Record(Failure.MigrationNotFound($"of a VM '{name}'"), name));
        }
    }
}
