using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>Get-KvmHost: the connected hosts, with figures of now.</summary>
[Cmdlet(VerbsCommon.Get, "KvmHost")]
[OutputType(typeof(KvmHost))]
public sealed class GetKvmHostCommand : FCtransCmdlet
{
    /// <summary>Names of hosts, with wildcards. Default: all.</summary>
    [Parameter(Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    public string[] Name { get; set; } = ["*"];

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        foreach (string pattern in Name)
        {
            ForItem(pattern, () => ForHosts(
                HostRegistry.Match(pattern),
                (host, stop) => host.Connection.GetHostAsync(stop),
                (host, _) =>
                {
                    // The same connection with new figures; it takes the place of the old object.
                    var now = new KvmHost(host.Connection);
                    HostRegistry.Add(now);
                    WriteObject(now);
                }));
        }
    }
}
