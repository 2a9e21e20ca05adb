using System.Net;
using FCtrans.Agent.Transport;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;

namespace FCtrans.Agent.Migration;

/// <summary>Tells a sub-host that a split is over, so that its store may go.</summary>
internal static class EndOfSplit
{
    /// <summary>How long a host is tried: one that is up answers at once, and others may have told it before.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    /// <summary>Best effort: a host that can't be reached is cleaned by the module, or by its operator.</summary>
    public static void TryTell(WorkerSpec spec, Peer sub, WorkerCertificate certificate, long pages, string reason, TimeSpan? patience = null)
    {
        try
        {
            var hello = new PeerHello(spec.SplitId, spec.Role, ConnectionPurpose.Control, pages);
            using var connection = PeerConnector.Connect(
                IPAddress.Parse(sub.Address), (int)sub.Port, sub.Thumbprint, certificate, hello, patience ?? Patience, spec.Tls, out _);
            connection.SendText(FrameType.Control, (byte)ControlCode.End, reason);
            // The sub-host ends the connection when it has understood; until then ours must stay open.
            connection.Read(out _, new byte[FrameHeader.MaxPayloadBytes]);
        }
        catch (IOException e)
        {
            WorkerLog.Write($"{sub.Host} could not be told that the split is over: {e.Message}");
        }
    }
}
