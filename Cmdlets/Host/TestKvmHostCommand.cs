using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>Test-KvmHost: checks what FCtrans needs of hosts; one object a check.</summary>
[Cmdlet(VerbsDiagnostic.Test, "KvmHost")]
[OutputType(typeof(KvmHostCheck))]
public sealed class TestKvmHostCommand : FCtransCmdlet
{
    /// <summary>Hosts, or their names with wildcards. Default: all connected ones.</summary>
    [Parameter(Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    public KvmHostReference[]? KvmHost { get; set; }

    /// <summary>Only what this part of a split needs. Default: everything.</summary>
    [Parameter]
    [ValidateSet("Source", "Main", "Sub")]
    public string? Part { get; set; }

    private readonly List<KvmHost> _answered = [];

    /// <inheritdoc/>
    protected override void ProcessRecord() => ForHosts(
        Hosts(KvmHost),
        (host, stop) => host.Connection.CheckHostAsync(stop),
        (host, checks) =>
        {
            _answered.Add(host);
            foreach (Contracts.HostCheck check in checks.Where(IsWanted))
            {
                WriteObject(new KvmHostCheck(host, check));
            }
        });

    /// <summary>Several hosts are to work together: whether they reach each other.</summary>
    protected override void EndProcessing()
    {
        Dictionary<KvmHostConnection, KvmHost> hosts = _answered.DistinctBy(h => h.Connection).ToDictionary(h => h.Connection);
        if (hosts.Count < 2)
        {
            return;
        }

        ForItem(hosts.Values.ToArray(), () =>
        {
            foreach ((KvmHostConnection host, Contracts.HostCheck check) in Await(stop => HostReachability.TestAsync([.. hosts.Keys], stop)))
            {
                if (IsWanted(check))
                {
                    WriteObject(new KvmHostCheck(hosts[host], check));
                }
            }
        });
    }

    private bool IsWanted(Contracts.HostCheck check) => Part is null || check.Parts.Contains(Part.ToLowerInvariant());
}
