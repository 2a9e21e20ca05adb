using System.Net;
using System.Runtime.InteropServices;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>The source's worker in this process, after a switch-over that left the first pages there. Can go away and come back as a restarted worker does.</summary>
internal sealed class TestSource : IDisposable
{
    private readonly PagingLab _lab;
    private readonly string _directory;
    private readonly WorkerCertificate _certificate;
    private readonly GuestRam _ram;
    private LeftPagesServer? _server;
    private PeerListener? _listener;

    public TestSource(PagingLab lab, long left)
    {
        _lab = lab;
        Left = left;
        _directory = Directory.CreateDirectory(Path.Combine(lab.Directory, "source")).FullName;
        _certificate = WorkerCertificate.Create(_directory);
        string path = Path.Combine(_directory, "ram");
        using (var file = File.Create(path))
        {
            ulong[] words = new ulong[PageIndex.PageSize / sizeof(ulong)];
            for (long page = 0; page < left; page++)
            {
                TestGuest.Fill(page, generation: 1, words);
                file.Write(MemoryMarshal.AsBytes<ulong>(words));
            }

            file.SetLength(lab.Pages * PageIndex.PageSize);
        }

        _ram = new([new RamBlock("ram", 0, lab.Pages, default, SparseFile.Open(path, write: true), path)], []);
        var pages = new PageBitmap(lab.Pages);
        pages.Fill(new(0, left), true);
        LeftPages.Keep(PagesPath, _ram, pages).Dispose();
    }

    /// <summary>Pages left at the switch-over: the first ones.</summary>
    public long Left { get; }

    public int Port { get; private set; }

    public string Thumbprint => _certificate.Thumbprint;

    /// <summary>Pages that it has still.</summary>
    public long Count => _server!.Pages!.Count;

    private string PagesPath => Path.Combine(_directory, "left");

    /// <summary>Once all who may ask are there.</summary>
    public void Start()
    {
        _server = new() { Pages = LeftPages.Reopen(PagesPath, _ram) };
        var peers = new Dictionary<string, WorkerRole> { [_lab.Certificate.Thumbprint] = WorkerRole.Main };
        foreach (var store in _lab.Stores)
        {
            peers.Add(store.Thumbprint, WorkerRole.Sub);
        }

        _listener = new(
            new()
            {
                Address = IPAddress.Loopback,
                Port = Port,
                Role = WorkerRole.Source,
                SplitId = PagingLab.SplitId,
                Pages = _lab.Pages,
                Certificate = _lab.Tls ? _certificate : null,
                Peers = peers,
            },
            _server.Serve);
        Port = _listener.Port;
        _listener.Start();
    }

    /// <summary>As a worker that is killed.</summary>
    public void Stop()
    {
        _listener?.Dispose();
        _listener = null;
        _server?.Pages?.Dispose();
        _server?.Dispose();
        _server = null;
    }

    public static RemoteStoreOptions Options(int index, int port, string thumbprint, long pages, WorkerCertificate? main) => new()
    {
        Index = index,
        Host = "source",
        Address = IPAddress.Loopback,
        Port = port,
        Thumbprint = thumbprint,
        Certificate = main,
        SplitId = PagingLab.SplitId,
        Pages = pages,
        IsSource = true,
    };

    public void Dispose()
    {
        Stop();
        _ram.Dispose();
        _certificate.Dispose();
    }
}
