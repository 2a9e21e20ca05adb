using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>What cmdlets share that take connections away from hosts.</summary>
public abstract class HostsCmdlet : FCtransCmdlet
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

    /// <summary>Closes the connection and tells of it.</summary>
    /// <param name="host">The host.</param>
    /// <param name="done">What has been done to it.</param>
    private protected void Leave(KvmHost host, string done)
    {
        host.Disconnect();
        WriteVerbose($"{host.Name}: {done}");
        if (PassThru)
        {
            WriteObject(host);
        }
    }
}
