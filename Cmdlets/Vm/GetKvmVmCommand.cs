using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>Get-KvmVm: the VMs that run on connected hosts.</summary>
[Cmdlet(VerbsCommon.Get, "KvmVm")]
[OutputType(typeof(KvmVm))]
public sealed class GetKvmVmCommand : FCtransCmdlet
{
    /// <summary>Names of VMs, with wildcards. Default: all.</summary>
    [Parameter(Position = 0)]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmVmCompleter))]
    public string[] Name { get; set; } = ["*"];

    /// <summary>Hosts to look on. Default: all connected ones.</summary>
    [Parameter(ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    public KvmHostReference[]? KvmHost { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        KvmHost[] hosts = Hosts(KvmHost);
        if (hosts.Length == 0)
        {
            return;
        }

        var patterns = Name.Select(n => (Text: n, Pattern: new WildcardPattern(n, WildcardOptions.IgnoreCase))).ToArray();
        var met = new HashSet<string>();
        bool complete = true;
        ForHosts(
            hosts,
            async (host, stop) => await host.Connection.ListVmsAsync(stop).ConfigureAwait(false),
            (host, vms) =>
            {
                foreach (Contracts.VmInfo vm in vms.OrderBy(v => v.Name, StringComparer.OrdinalIgnoreCase))
                {
                    string[] matching = [.. patterns.Where(p => p.Pattern.IsMatch(vm.Name)).Select(p => p.Text)];
                    if (matching.Length > 0)
                    {
                        met.UnionWith(matching);
                        WriteObject(new KvmVm(host, vm));
                    }
                }
            },
            () => complete = false);

        // A host that could not be asked has its own error; whether the VM is there, nobody knows.
        foreach (string name in Name.Where(n => complete && !met.Contains(n) && !WildcardPattern.ContainsWildcardCharacters(n)))
        {
            WriteError(Errors.Record(
                Failure.VmNotFound(name, string.Join(", ", hosts.Select(h => $"'{h.Name}'"))), name));
        }
    }
}
