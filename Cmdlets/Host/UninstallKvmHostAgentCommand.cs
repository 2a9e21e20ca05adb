using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>Uninstall-KvmHostAgent: removes all that FCtrans ever put on hosts, unless a VM depends on it.</summary>
[Cmdlet(VerbsLifecycle.Uninstall, "KvmHostAgent", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(void), typeof(KvmHost))]
public sealed class UninstallKvmHostAgentCommand : HostsCmdlet
{
    /// <inheritdoc/>
    protected override void ProcessRecord() => ForHosts(
        [.. Hosts(KvmHost).Where(h => ShouldProcess(h.Name, "Remove the agent and the records of migrations, and disconnect"))],
        async (host, stop) =>
        {
            await host.Connection.UninstallAsync(stop).ConfigureAwait(false);
            return true;
        },
        (host, _) => Leave(host, "nothing of FCtrans is left there."));
}
