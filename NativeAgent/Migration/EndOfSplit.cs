using System.Net;
using FCtrans.Agent.Transport;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;

namespace FCtrans.Agent.Migration;

/// <summary>Tells hosts that a split is over, so that what they have of it may go.</summary>
internal static class EndOfSplit
{
    /// <summary>How long a host is tried: one that is up answers at once, and others may have told it before.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    /// <summary>How long hosts are told that did not hear it at once.</summary>
    public static readonly TimeSpan LongPatience = TimeSpan.FromMinutes(10);

    /// <summary>Apart from the connections of the migration itself.</summary>
    private const byte LastWordStream = 2;

    private static readonly TimeSpan s_answerPatience = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan s_restartPatience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(500);

    /// <summary>Best effort: a host that can't be reached is cleaned by the module, or by its operator.</summary>
    /// <returns>Whether it has heard it.</returns>
    public static bool TryTell(WorkerSpec spec, Peer sub, WorkerCertificate certificate, long pages, string reason, TimeSpan? patience = null)
    {
        try
        {
            var hello = new PeerHello(spec.SplitId, spec.Role, ConnectionPurpose.Control, pages);
            using var connection = PeerConnector.Connect(
                IPAddress.Parse(sub.Address), (int)sub.Port, sub.Thumbprint, certificate, hello, patience ?? Patience, spec.Tls, out _);
            connection.SendText(FrameType.Control, (byte)ControlCode.End, reason);
            // The sub-host ends the connection when it has understood; until then ours must stay open.
            connection.Read(out _, new byte[FrameHeader.MaxPayloadBytes]);
            return true;
        }
        catch (IOException e)
        {
            WorkerLog.Write($"{sub.Host} could not be told that the split is over: {e.Message}");
            return false;
        }
    }

    /// <summary>
    /// Tells hosts until each has heard it, or is known to have ended, or until <see cref="LongPatience"/> is over. For a source whose VM runs on there:
    /// a main host that has all of the VM does nothing before it hears from its source, however long that takes.
    /// </summary>
    public static void TellUntilHeard(
        WorkerSpec spec, IEnumerable<Peer> peers, WorkerCertificate certificate, long pages, string reason, CancellationToken stop)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(stop);
        patience.CancelAfter(Diagnostics.Patience.Of("source.telling", LongPatience));
        Task.WaitAll([.. peers.Select(peer => Task.Factory.StartNew(
            () => TellUntilHeard(spec, peer, certificate, pages, reason, patience.Token), TaskCreationOptions.LongRunning))]);
    }

    private static void TellUntilHeard(WorkerSpec spec, Peer peer, WorkerCertificate certificate, long pages, string reason, CancellationToken patience)
    {
        var hello = new PeerHello(spec.SplitId, spec.Role, ConnectionPurpose.Control, pages, Stream: LastWordStream);
        long nobodySince = -1;
        while (!patience.IsCancellationRequested)
        {
            try
            {
                using var connection = PeerConnector.Connect(
                    IPAddress.Parse(peer.Address), (int)peer.Port, peer.Thumbprint, certificate, hello, Patience, spec.Tls, out _, patience);
                nobodySince = -1;
                connection.SendText(FrameType.Control, (byte)(peer.Role == WorkerRole.Main ? ControlCode.Abort : ControlCode.End), reason);
                // It ends the connection when it has acted on it. A link that dies meanwhile does not end it.
                using var limit = new Timer(c => ((FrameConnection)c!).Abort(), connection, s_answerPatience, Timeout.InfiniteTimeSpan);
                using var stopped = patience.Register(connection.Abort);
                byte[] buffer = new byte[FrameHeader.MaxPayloadBytes];
                while (connection.Read(out _, buffer))
                {
                }

                return;
            }
            catch (PeerConnectionException e) when (e.IsRefused)
            {
                // Another worker has its port.
                return;
            }
            catch (PeerConnectionException e) when (e.NobodyListens)
            {
                nobodySince = nobodySince < 0 ? Environment.TickCount64 : nobodySince;
                if (Environment.TickCount64 - nobodySince > s_restartPatience.TotalMilliseconds)
                {
                    // A worker that dies is started again sooner: this one has ended.
                    return;
                }
            }
            catch (IOException)
            {
                // The link, or its worker: once more.
                nobodySince = -1;
            }
            catch (OperationCanceledException)
            {
                return;
            }

            patience.WaitHandle.WaitOne(s_pause);
        }
    }
}
