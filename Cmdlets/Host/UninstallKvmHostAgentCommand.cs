using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>Uninstall-KvmHostAgent: removes all that FCtrans ever put on hosts, unless a VM depends on it.</summary>
[Cmdlet(VerbsLifecycle.Uninstall, "KvmHostAgent", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(void), typeof(KvmHost))]
public sealed class UninstallKvmHostAgentCommand : FCtransCmdlet
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
        KvmHost[] hosts = [.. Hosts(KvmHost)
            .Where(h => ShouldProcess(h.Name, "Remove the agent and the records of migrations, and disconnect"))];
        ForHosts(
            hosts,
            async (host, stop) =>
            {
                await host.Connection.UninstallAsync(stop).ConfigureAwait(false);
                return true;
            },
            (host, _) =>
            {
                host.Disconnect();
                WriteVerbose($"{host.Name}: nothing of FCtrans is left there.");
                if (PassThru)
                {
                    WriteObject(host);
                }
            });
    }
}
