using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Get-SplitMigration: split migrations that the connected hosts know of, running or ended.</summary>
[Cmdlet(VerbsCommon.Get, "SplitMigration")]
[OutputType(typeof(SplitMigration))]
public sealed class GetSplitMigrationCommand : FCtransCmdlet
{
    /// <summary>VMs, or names of VMs with wildcards; or hosts: all that they take part in. Default: all.</summary>
    [Parameter(Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmVmCompleter))]
    public VmReference[]? VM { get; set; }

    /// <summary>The migration's id.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [AllowEmptyString]
    [ArgumentCompleter(typeof(SplitIdCompleter))]
    public string? SplitId { get; set; }

    /// <summary>Hosts to ask. Default: all connected ones.</summary>
    [Parameter]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    public KvmHostReference[]? KvmHost { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        // A VM's object that takes part in no split has an empty one.
        string? id = string.IsNullOrEmpty(SplitId) ? null : SplitId;
        bool complete = true;
        KvmHost[] hosts = Hosts(KvmHost);
        var workers = new List<(KvmHost, WorkerSummary)>();
        ForHosts(
            hosts,
            async (host, stop) => await host.Connection.ListWorkersAsync(stop).ConfigureAwait(false),
            (host, found) => workers.AddRange(found.Select(w => (host, w))),
            () => complete = false);

        SplitMigration[] all = [.. SplitMigrationCatalog.From(workers)
            .Where(m => id is null || string.Equals(m.SplitId, id, StringComparison.OrdinalIgnoreCase))];
        foreach (VmReference vm in VM ?? [new VmReference("*")])
        {
            SplitMigration[] matching = [];
            if (!ForItem(vm.ToString(), () => matching = vm.Pick(all, m => m.VM, SplitMigrationCatalog.IsOn)))
            {
                continue;
            }

            WriteObject(matching, enumerateCollection: true);
            if (matching.Length == 0 && complete && hosts.Length > 0
                && (id is not null || !vm.IsPattern))
            {
                string what = id ?? $"of a VM '{vm}'";
                WriteError(Errors.Record(Failure.MigrationNotFound(what), id ?? vm.ToString()));
            }
        }
    }
}
