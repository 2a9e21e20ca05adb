using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>Disconnect-KvmHost: closes connections. What runs on the hosts goes on.</summary>
[Cmdlet(VerbsCommunications.Disconnect, "KvmHost", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Low)]
[OutputType(typeof(void), typeof(KvmHost))]
public sealed class DisconnectKvmHostCommand : HostsCmdlet
{
    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        foreach (KvmHost host in Hosts(KvmHost).Where(h => ShouldProcess(h.Name, "Disconnect")))
        {
            Leave(host, "disconnected.");
        }
    }
}
