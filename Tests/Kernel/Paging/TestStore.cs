using System.Net;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>A sub-host's worker in this process: its store and data port. Can go away and come back as a restarted worker does.</summary>
internal sealed class TestStore : IDisposable
{
    private readonly string _directory;

    /// <summary>Where its file and its certificate are.</summary>
    public string StoreDirectory => _directory;

    private readonly PagingLab _lab;
    private readonly WorkerCertificate _certificate;
    private PeerListener? _listener;

    public TestStore(PagingLab lab, int index, long limitPages)
    {
        _lab = lab;
        Index = index;
        LimitPages = limitPages;
        _directory = Directory.CreateDirectory(Path.Combine(lab.Directory, $"sub{index}")).FullName;
        _certificate = WorkerCertificate.Create(_directory);
        Start();
    }

    public int Index { get; }

    public long LimitPages { get; }

    public int Port { get; private set; }

    /// <summary>Where pagers that are started from now on find it, if not at its own port.</summary>
    public int? ReachedAt { get; set; }

    public string Thumbprint => _certificate.Thumbprint;

    public PageStore Pages { get; private set; } = null!;

    public StoreServer Server { get; private set; } = null!;

    public long Accepted => _listener!.Accepted;

    public void Start()
    {
        Pages = PageStore.Open(_directory, _lab.Pages, LimitPages);
        Server = new(Pages, new SourceReader(ConnectToSource));
        _listener = new(
            new()
            {
                Address = IPAddress.Loopback,
                Port = Port,
                Role = WorkerRole.Sub,
                SplitId = PagingLab.SplitId,
                Pages = _lab.Pages,
                Certificate = _lab.Tls ? _certificate : null,
                Peers = new Dictionary<string, WorkerRole> { [_lab.Certificate.Thumbprint] = WorkerRole.Main },
                LimitPages = LimitPages,
            },
            Server.Serve);
        Port = _listener.Port;
        _listener.Start();
    }

    /// <summary>As a worker that is killed: its connections break, its file stays.</summary>
    public void Stop()
    {
        _listener?.Dispose();
        _listener = null;
        Pages.Dispose();
    }

    /// <summary>As a host that is gone: what it had is too.</summary>
    public void Vanish()
    {
        Stop();
        File.Delete(Path.Combine(_directory, PageStore.FileName));
    }

    private FrameConnection ConnectToSource(IPEndPoint at) => PeerConnector.Connect(
        at.Address, at.Port, _lab.Source!.Thumbprint, _certificate,
        new PeerHello(PagingLab.SplitId, WorkerRole.Sub, ConnectionPurpose.Demand, _lab.Pages), TimeSpan.FromSeconds(1), _lab.Tls, out _);

    public RemoteStoreOptions Options(WorkerCertificate main) => new()
    {
        Index = Index,
        Host = $"sub{Index}",
        Address = IPAddress.Loopback,
        Port = ReachedAt ?? Port,
        Thumbprint = Thumbprint,
        Certificate = _lab.Tls ? main : null,
        SplitId = PagingLab.SplitId,
        Pages = _lab.Pages,
        AnswerTimeout = _lab.AnswerTimeout,
    };

    public void Dispose()
    {
        if (_listener is not null)
        {
            Stop();
        }

        _certificate.Dispose();
    }
}
