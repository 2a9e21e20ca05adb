using System.Management.Automation;

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

    /// <inheritdoc/>
    protected override void ProcessRecord() => ForHosts(
        Hosts(KvmHost),
        (host, stop) => host.Connection.CheckHostAsync(stop),
        (host, checks) =>
        {
            foreach (Contracts.HostCheck check in checks.Where(c => Part is null || c.Parts.Contains(Part.ToLowerInvariant())))
            {
                WriteObject(new KvmHostCheck(host, check));
            }
        });
}
