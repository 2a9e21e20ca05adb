using System.Globalization;
using System.Net;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;

namespace FCtrans.Agent.Migration;

/// <summary>
/// What makes the source one more store after a switch-over that did not wait for all pages: the pages, and the port where the main host
/// asks for them. Begun before the commitment, so that the destination's QEMU can load its device state; kept until the main host has all.
/// </summary>
internal sealed class SourceStore : IDisposable
{
    private const string PagesFile = "left-pages";

    private readonly WorkerDirectory _directory;
    private readonly LeftPagesServer _server;
    private readonly PeerListener _listener;

    private SourceStore(
        WorkerSpec spec, WorkerDirectory directory, WorkerCertificate certificate, RateLimiter? limiter, IPEndPoint at, LeftPages pages)
    {
        _directory = directory;
        Pages = pages;
        _server = new LeftPagesServer(limiter) { Pages = pages };
        _listener = new PeerListener(
            new PeerListenerOptions
            {
                Address = at.Address,
                Port = at.Port,
                Role = WorkerRole.Source,
                SplitId = spec.SplitId,
                Pages = spec.RamBlocks.Sum(block => (long)(block.SizeBytes >> PageIndex.PageShift)),
                Certificate = spec.Tls ? certificate : null,
                Peers = spec.Peers.Where(peer => peer.Role is WorkerRole.Main or WorkerRole.Sub).ToDictionary(peer => peer.Thumbprint, peer => peer.Role),
            },
            _server.Serve);
        _listener.Start();
    }

    public LeftPages Pages { get; }

    public int Port => _listener.Port;

    /// <summary>Opens it for a switch-over that is about to be.</summary>
    /// <param name="address">Ours, as the main host sees it.</param>
    /// <param name="left">Owned from now on.</param>
    /// <exception cref="IOException">The address can't be bound.</exception>
    public static SourceStore Open(
        WorkerSpec spec, WorkerDirectory directory, WorkerCertificate certificate, RateLimiter? limiter, IPAddress address, GuestRam ram, PageBitmap left)
    {
        var store = new SourceStore(
            spec, directory, certificate, limiter, new IPEndPoint(address, 0), LeftPages.Keep(directory.File(PagesFile), ram, left));
        directory.Mark(Markers.LeftPort, new IPEndPoint(address, store.Port).ToString());
        return store;
    }

    /// <summary>Whether a worker before this one had opened it and nobody has said that it is over.</summary>
    public static bool WasOpen(WorkerDirectory directory) => directory.Has(Markers.LeftPort) && !directory.Has(Markers.LeftTaken);

    /// <summary>Opens it again, where the main host will look for it, with what is still here.</summary>
    /// <exception cref="IOException">The port is another's now.</exception>
    public static SourceStore Reopen(
        WorkerSpec spec, WorkerDirectory directory, WorkerCertificate certificate, RateLimiter? limiter, GuestRam ram) => new(
        spec, directory, certificate, limiter, IPEndPoint.Parse(directory.Read(Markers.LeftPort)!), LeftPages.Reopen(directory.File(PagesFile), ram));

    /// <summary>After a failure before the commitment: nothing was left after all.</summary>
    public static void Forget(WorkerDirectory directory)
    {
        File.Delete(directory.File(Markers.LeftPort));
        File.Delete(directory.File(PagesFile));
    }

    /// <summary>Waits until the main host has said that it needs nothing of it any more.</summary>
    /// <param name="look">Called every now and then meanwhile.</param>
    /// <exception cref="OperationCanceledException"><paramref name="stop"/> came first.</exception>
    public void WaitTaken(Action look, CancellationToken stop)
    {
        while (!_server.Over.WaitOne(TimeSpan.FromMilliseconds(100)))
        {
            stop.ThrowIfCancellationRequested();
            look();
        }

        _directory.Mark(Markers.LeftTaken, _server.PagesGiven.ToString(CultureInfo.InvariantCulture));
    }

    public void Dispose()
    {
        _listener.Dispose();
        _server.Dispose();
        Pages.Dispose();
    }
}
