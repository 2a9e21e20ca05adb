using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>Disconnect-KvmHost: closes connections. What runs on the hosts goes on.</summary>
[Cmdlet(VerbsCommunications.Disconnect, "KvmHost", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Low)]
[OutputType(typeof(void))]
public sealed class DisconnectKvmHostCommand : FCtransCmdlet
{
    /// <summary>Hosts, or their names with wildcards.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    [ValidateNotNull]
    public KvmHostReference[] KvmHost { get; set; } = [];

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        foreach (KvmHostReference reference in KvmHost)
        {
            ForItem(reference.ToString(), () =>
            {
                foreach (KvmHost host in HostRegistry.Match(WildcardPattern.ContainsWildcardCharacters(reference.ToString())
                    ? reference.ToString() : reference.Resolve().Name))
                {
                    if (ShouldProcess(host.Name, "Disconnect"))
                    {
                        host.Disconnect();
                    }
                }
            });
        }
    }
}
