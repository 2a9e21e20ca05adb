using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>Disconnect-KvmHost: closes connections. What runs on the hosts goes on.</summary>
[Cmdlet(VerbsCommunications.Disconnect, "KvmHost", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Low)]
[OutputType(typeof(void), typeof(KvmHost))]
public sealed class DisconnectKvmHostCommand : FCtransCmdlet
{
    /// <summary>Hosts, or their names with wildcards.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    [ValidateNotNull]
    public KvmHostReference[] KvmHost { get; set; } = [];

    /// <summary>Write the hosts as they were.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        foreach (KvmHost host in Hosts(KvmHost))
        {
            if (ShouldProcess(host.Name, "Disconnect"))
            {
                host.Disconnect();
                WriteVerbose($"{host.Name}: disconnected.");
                if (PassThru)
                {
                    WriteObject(host);
                }
            }
        }
    }
}
