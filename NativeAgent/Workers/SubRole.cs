using System.Net;
using System.Text;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;

namespace FCtrans.Agent.Workers;

/// <summary>
/// A sub-host's worker: keeps pages for one split VM until the main host, or the source of a migration that failed, says that
/// the split is over. Its store is a file in tmpfs, so that it outlives this process. Where it has not, this worker never serves another in
/// its place: it says so, to whoever asks for a page and in its status, and waits for the end.
/// </summary>
internal sealed class SubRole : IWorkerRole
{
    private static readonly TimeSpan s_firstContact = TimeSpan.FromMinutes(10);
    private static readonly TimeSpan s_sourcePatience = TimeSpan.FromSeconds(1);

    private readonly WorkerSpec _spec;
    private readonly WorkerDirectory _directory;
    private readonly WorkerCertificate _certificate;
    private readonly ManualResetEventSlim _over = new();
    private PageStore? _store;
    private StoreServer? _server;
    private PeerListener? _listener;
    private string? _storeGone;
    private Action? _firstServed;

    public SubRole(WorkerSpec spec, WorkerDirectory directory)
    {
        _spec = spec;
        _directory = directory;
        _certificate = WorkerCertificate.Load(directory.Path);
    }

    /// <summary>Removes the store of a split that is over.</summary>
    public static void RemoveStore(string splitId)
    {
        string path = StoreDirectory(splitId);
        if (Directory.Exists(path))
        {
            Directory.Delete(path, recursive: true);
        }
    }

    public void Run(Action<int> ready, CancellationToken stop)
    {
        long pages = _spec.RamBlocks.Sum(block => (long)(block.SizeBytes >> PageIndex.PageShift));
        try
        {
            _store = OpenStore(pages);
            _server = new StoreServer(_store, new SourceReader(at => ConnectToSource(at, pages)));
        }
        catch (StoreGoneException e)
        {
            _storeGone = e.Message;
            WorkerLog.Write(e.Message);
        }

        bool restarted = _directory.Has(Markers.Ready);
        if (restarted)
        {
            // Once the main host's worker is back: it has a guest that waits.
            _firstServed = () => ready(_listener!.Port);
        }

        _listener = new PeerListener(
            new PeerListenerOptions
            {
                Address = IPAddress.Parse(_spec.ListenAddress),
                Port = _directory.ReadNumber(Markers.Ready),
                Role = WorkerRole.Sub,
                SplitId = _spec.SplitId,
                Pages = pages,
                LimitPages = _store?.LimitPages ?? 0,
                ControlOnly = _storeGone,
                Certificate = _spec.Tls ? _certificate : null,
                Peers = _spec.Peers.Where(peer => peer.Role != WorkerRole.Sub).ToDictionary(peer => peer.Thumbprint, peer => peer.Role),
            },
            Serve);
        _listener.Start();
        if (!restarted)
        {
            ready(_listener.Port);
            GiveUpWithoutPeers(stop);
        }

        WaitHandle.WaitAny([_over.WaitHandle, stop.WaitHandle]);
        if (_over.IsSet)
        {
            _listener.Dispose();
            _store?.Dispose();
            RemoveStore(_spec.SplitId);
        }
    }

    /// <summary>Whoever started it may have been killed before the others were: then nobody ever comes, and nothing is lost with an empty store.</summary>
    private void GiveUpWithoutPeers(CancellationToken stop)
    {
        var patience = Patience.Of("sub.first-contact", s_firstContact);
        if (WaitHandle.WaitAny([_over.WaitHandle, stop.WaitHandle], patience) == WaitHandle.WaitTimeout && _listener!.Accepted == 0)
        {
            WorkerLog.Write($"nobody came to this sub-host within {patience.TotalMinutes:0.#} minutes: the migration was never begun.");
            _over.Set();
        }
    }

    public bool IsOver => _over.IsSet;

    public WorkerStatus Snapshot()
    {
        var status = new WorkerStatus
        {
            Role = WorkerRole.Sub,
            SplitId = _spec.SplitId,
            VmName = _spec.VmName,
            UnixMilliseconds = DateTimeOffset.UtcNow.ToUnixTimeMilliseconds(),
            Store = new StoreStatus(),
        };
        status.Store.LastError = _storeGone ?? "";
        if (_server?.Figures is { } figures)
        {
            status.Store.StoredPages = (ulong)figures.StoredPages;
            status.Store.LimitBytes = (ulong)figures.LimitPages << PageIndex.PageShift;
            status.Store.PagesWritten = (ulong)figures.PagesWritten;
            status.Store.PagesRead = (ulong)figures.PagesRead;
            status.Store.PagesDiscarded = (ulong)figures.PagesDiscarded;
            status.Store.Connections = (ulong)figures.Connections;
            status.Store.RefusedConnections = (ulong)(_listener?.Refused ?? 0);
            status.Store.LastError = figures.LastError ?? "";
        }

        return status;
    }

    public void Abort(string reason) => throw new InvalidOperationException("A sub-host's store ends with its split VM; abort at the source.");

    public void Dispose()
    {
        _listener?.Dispose();
        _store?.Dispose();
        _certificate.Dispose();
        _over.Dispose();
    }

    private PageStore OpenStore(long pages)
    {
        string path = StoreDirectory(_spec.SplitId);
        bool hadOne = _directory.Has(Markers.Ready);
        if (!hadOne)
        {
            Directory.CreateDirectory(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }

        long limit = (long)(_spec.StoreLimitBytes >> PageIndex.PageShift);
        var store = PageStore.Open(path, pages, limit > 0 ? limit : pages, mustExist: hadOne, mustHavePacked: _directory.Has(Markers.Packed));
        _directory.Mark(Markers.Packed);
        return store;
    }

    private static string StoreDirectory(string splitId) => $"/dev/shm/fctrans-{splitId}-store";

    private FrameConnection ConnectToSource(IPEndPoint at, long pages)
    {
        var source = _spec.Peers.FirstOrDefault(peer => peer.Role == WorkerRole.Source)
            ?? throw new IOException("This sub-host came after the VM had left its source.");
        return PeerConnector.Connect(
            at.Address, at.Port, source.Thumbprint, _certificate,
            new PeerHello(_spec.SplitId, WorkerRole.Sub, ConnectionPurpose.Demand, pages), s_sourcePatience, _spec.Tls, out _);
    }

    private void Serve(FrameConnection connection, PeerHello hello)
    {
        Interlocked.Exchange(ref _firstServed, null)?.Invoke();
        if (hello.Purpose != ConnectionPurpose.Control)
        {
            _server!.Serve(connection, hello);
            return;
        }

        byte[] buffer = new byte[FrameHeader.MaxPayloadBytes];
        while (connection.Read(out var frame, buffer))
        {
            if (frame.Type != FrameType.Control || (ControlCode)buffer[0] != ControlCode.End)
            {
                throw connection.Refuse("A sub-host takes no control message but End.");
            }

            WorkerLog.Write($"the split is over: {Encoding.UTF8.GetString(buffer, 1, frame.PayloadBytes - 1)}");
            _over.Set();
            return;
        }
    }
}
