using System.Globalization;
using System.Net;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;

namespace FCtrans.Bench;

/// <summary>Our pager for one guest, in this process, and where its store is.</summary>
internal sealed class PagingUnderTest : IDisposable
{
    private const int PieceShift = 10;

    private readonly GuestRam _ram;
    private readonly UserfaultfdSet _uffds;
    private readonly PageTable _table;
    private readonly RemoteStore _store;

    public PagingUnderTest(PagingGuest guest, int port, string thumbprint, WorkerCertificate? certificate, long remote, bool prefetch, long limit, EvictionPolicy policy = EvictionPolicy.Refault)
    {
        _ram = new([new RamBlock("ram", 0, guest.Pages, guest.Address, SparseFile.Open(guest.RamPath, write: true), guest.RamPath)], []);
        using (PidFd process = PidFd.Open(guest.ProcessId))
        {
            Userfaultfd[] uffds = Array.ConvertAll(guest.Userfaultfds, number => new Userfaultfd(process.GetFd(number)));
            Array.ForEach(uffds, static uffd => uffd.Api(UffdFeatures.Paging));
            // Smaller pieces than a VM's, so that a guest as small as this has some for each.
            _uffds = UserfaultfdSet.Register(_ram, uffds, uffds.Length == 1 ? 0 : PieceShift);
        }

        _table = new(guest.Pages);
        if (remote > 0)
        {
            _table.SetRemote(new(0, remote), 0);
        }

        _store = new(new()
        {
            Index = 0,
            Host = "store",
            Address = IPAddress.Loopback,
            Port = port,
            Thumbprint = thumbprint,
            Certificate = certificate,
            SplitId = PagingStore.SplitId,
            Pages = guest.Pages,
        });
        _store.Start();
        Pager = new(new()
        {
            Ram = _ram,
            Uffds = _uffds,
            Table = _table,
            Stores = [_store],
            LimitPages = limit,
            Policy = policy,
            TrackUnused = true,
            Prefetch = prefetch,
        });
        Pager.Start();
        if (!SpinWait.SpinUntil(() => _store.IsConnected, TimeSpan.FromSeconds(10)))
        {
            throw new TimeoutException(string.Create(CultureInfo.InvariantCulture, $"The store could not be reached: {_store.Problem}"));
        }
    }

    public Pager Pager { get; }

    public void Dispose()
    {
        Pager.Stop();
        _store.Dispose();
        Pager.Dispose();
        _uffds.Dispose();
        _ram.Dispose();
        _table.Dispose();
    }
}
