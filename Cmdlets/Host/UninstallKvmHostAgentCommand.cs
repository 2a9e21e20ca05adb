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
        (host, stop) => host.Connection.UninstallAsync(stop),
        (host, left) =>
        {
            if (left.Length > 0)
            {
                WriteWarning($"{host.Name}: {left}");
            }

            Leave(host, left.Length > 0 ? "the agent was removed." : "nothing of FCtrans is left there.");
        });
}
