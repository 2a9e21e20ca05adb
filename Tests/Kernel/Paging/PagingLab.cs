using System.Globalization;
using System.Runtime.InteropServices;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>A guest process, sub-hosts' stores, and a pager between them: in this process, or in one of its own that can be killed.</summary>
internal sealed class PagingLab : IDisposable
{
    public const string SplitId = "00112233445566778899aabbccddeeff";

    /// <summary>How many userfaultfds a guest has where the test does not say: set it to try all of them with several.</summary>
    private static readonly int s_userfaultfds = int.Parse(Environment.GetEnvironmentVariable("FCTRANS_TEST_USERFAULTFDS") ?? "1", CultureInfo.InvariantCulture);

    /// <summary>The one of the test that runs on this thread.</summary>
    [ThreadStatic]
    private static PagingLab? s_current;

    private readonly List<RemoteStore> _remote = [];
    private readonly List<StoreProcess> _storeProcesses = [];
    private readonly TestGuest? _guest;
    private readonly IPagedProcess? _owned;
    private readonly bool _registered;
    private GuestRam? _ram;
    private UserfaultfdSet? _uffds;
    private PageTable? _table;
    private PackedPages? _packed;
    private AwayPages? _away;
    private PagerProcess? _process;

    public PagingLab(long pages, long used, long limit, bool tls = true, int stores = 2, long storeLimit = 0, int threads = 4, bool trackUnused = true, int copies = 1, long left = 0, int userfaultfds = 0)
        : this(directory => new TestGuest(directory, pages, threads, used, userfaultfds == 0 ? s_userfaultfds : userfaultfds), pages, limit, tls, stores, storeLimit, trackUnused, copies)
    {
        if (left > 0)
        {
            Source = new(this, left);
            Source.Start();
            Guest.Ask($"adopt 0 {left} 1", "adopted");
        }
    }

    /// <param name="process">Plays the guest; its owner's. Its memory is registered already.</param>
    public PagingLab(IPagedProcess process, long pages, long limit)
        : this(_ => process, pages, limit, tls: true, stores: 2, storeLimit: 0, trackUnused: true, copies: 1)
    {
        _owned = null;
    }

    /// <param name="player">Who plays the guest.</param>
    /// <param name="used">Of a machine, a multiple of 256.</param>
    public PagingLab(Player player, long used, long limit, int stores = 2, int copies = 1)
        : this(
            directory => player == Player.Kvm ? new BareGuest((int)(used >> 8) + 32, (int)(used >> 8), userfaultfds: 3)
                : new TestGuest(directory, PagesOf(player, used), threads: 4, used, s_userfaultfds),
            PagesOf(player, used), limit, tls: true, stores, storeLimit: 0, trackUnused: true, copies)
    {
        Assert.True(Process is not BareGuest { UsesKvm: false });
    }

    private PagingLab(
        Func<string, IPagedProcess> start, long pages, long limit, bool tls, int stores, long storeLimit, bool trackUnused, int copies)
    {
        s_current = this;
        Copies = copies;
        Pages = pages;
        Limit = limit;
        Tls = tls;
        TrackUnused = trackUnused;
        Directory = System.IO.Directory.CreateDirectory($"/dev/shm/fctrans-test-{Guid.NewGuid():N}").FullName;
        Certificate = WorkerCertificate.Create(Directory);
        StateDirectory = System.IO.Directory.CreateDirectory(Path.Combine(Directory, "state")).FullName;
        Stores = [.. Enumerable.Range(0, stores).Select(i => new TestStore(this, i, storeLimit == 0 ? pages : storeLimit))];
        Process = start(Directory);
        _owned = Process;
        _guest = Process as TestGuest;
        // A machine has run before it is paged.
        _registered = Process is BareGuest;
    }

    /// <summary>Where the VM's first pages were left; null: nowhere.</summary>
    public TestSource? Source { get; }

    public long Pages { get; }

    public long Limit { get; }

    public bool Tls { get; }

    public bool TrackUnused { get; }

    /// <summary>Whether the kernel counts as one that can give the guest memory errors.</summary>
    public bool MemoryErrors { get; init; } = true;

    public int Copies { get; set; }

    public string Directory { get; }

    /// <summary>What the pagers keep beside the stores.</summary>
    public string StateDirectory { get; }

    /// <summary>Stores that were given up.</summary>
    public List<int> Gone { get; } = [];

    public WorkerCertificate Certificate { get; }

    public TestStore[] Stores { get; private set; }

    public IPagedProcess Process { get; }

    /// <summary>Unless somebody else plays the guest.</summary>
    public TestGuest Guest => _guest!;

    /// <summary>The guest, whoever plays it.</summary>
    public IWorkingGuest Oracle => (IWorkingGuest)Process;

    public Pager Pager { get; private set; } = null!;

    public PageTable Table => _table!;

    public IReadOnlyList<RemoteStore> Remote => _remote;

    /// <summary>Of the pager in this process.</summary>
    public PackedPages Packed => _packed!;

    /// <summary>Gives the guest pages, packed, before there is a pager: its first ones, or one in so many.</summary>
    public unsafe void Pack(int pages, int oneIn = 1)
    {
        using var packed = PackedPages.Open(Directory, Pages);
        byte[] content = new byte[PageIndex.PageSize];
        byte[] rows = new byte[RowCodec.MaxEncodedBytes];
        for (int page = 0; page < pages * oneIn; page += oneIn)
        {
            TestGuest.Fill(page, generation: 5, MemoryMarshal.Cast<byte, ulong>(content.AsSpan()));
            Assert.True(RowCodec.TryEncode(content, rows, out int length));
            Assert.Equal(Errno.None, packed.Put(new(page, 1), rows.AsSpan(0, length)));
            Guest.Ask($"adopt {page} {page + 1} 5", "adopted");
        }
    }

    /// <summary>What a migration has brought packed.</summary>
    public static void SetPacked(PageTable table, PackedPages packed)
    {
        for (long from = 0; packed.NextRun(from, out var run); from = run.End)
        {
            table.SetPacked(run);
        }
    }

    /// <summary>
    /// Starts a pager in this process. All pages are unused, or what <paramref name="prepare"/> makes of them; those of a machine are what it
    /// has made of them.
    /// </summary>
    /// <param name="unheard">Nobody has heard what those had that are gone.</param>
    public void StartPager(Action<PageTable>? prepare = null, bool resume = false, bool unheard = false)
    {
        resume |= _registered;
        Open(resume);
        using var lost = resume ? LostPages.Read(StateDirectory, Pages) : new PageBitmap(Pages);
        if (unheard)
        {
            AwayPages.AddTo(StateDirectory, lost);
        }

        var options = new PagerOptions
        {
            Ram = _ram!,
            Uffds = _uffds!,
            Table = _table!,
            Packed = _packed,
            Stores = _remote,
            LimitPages = Limit,
            TrackUnused = TrackUnused,
            Copies = Copies,
            MayHavePairs = Copies > 1,
            StateDirectory = StateDirectory,
            CopyPatience = TimeSpan.FromMilliseconds(100),
            Gone = Gone,
            Lost = lost,
            MemoryErrors = MemoryErrors,
        };
        if (!resume)
        {
            SetPacked(_table!, _packed!);
        }

        prepare?.Invoke(_table!);
        Pager = resume ? Pager.Resume(options) : new(options);
        _away = (resume ? AwayPages.TryOpen(StateDirectory, Pages) : null) ?? AwayPages.Create(StateDirectory, _table!);
        _table!.Away = _away;
        Pager.Start();
    }

    /// <summary>One more sub-host, for the pager that runs.</summary>
    public void AddStore()
    {
        var store = new TestStore(this, Stores.Length, Pages);
        Stores = [.. Stores, store];
        var remote = new RemoteStore(store.Options(Certificate));
        remote.Start();
        WaitFor(() => remote.IsConnected, "the new sub-host is connected");
        _remote.Add(remote);
        Pager.AddStore(remote);
    }

    public void StopPager()
    {
        Pager.Stop();
        _remote.ForEach(r => r.Dispose());
        _remote.Clear();
        Pager.Dispose();
        _uffds!.Dispose();
        _ram!.Dispose();
        _table!.Dispose();
        _packed!.Dispose();
        _away!.Dispose();
        Pager = null!;
    }

    public PagerProcess StartPagerProcess(bool resume, string? failurePoints = null) => _process = PagerProcess.Start(this, resume, failurePoints);

    /// <summary>Bytes of the guest's memory that take room here.</summary>
    public long ResidentBytes()
    {
        using var file = SparseFile.Open(Process.RamPath, write: false);
        return SparseFile.AllocatedBytes(file);
    }

    /// <summary>Waits for a state, at most a minute.</summary>
    public static void WaitFor(Func<bool> state, string what)
    {
        bool came = SpinWait.SpinUntil(
            () =>
            {
                bool there = state();
                if (!there)
                {
                    Thread.Sleep(1);
                }

                return there;
            },
            TimeSpan.FromSeconds(60));
        if (!came)
        {
            Assert.Fail($"not within 60 s: {what}. {s_current?.Describe()}");
        }
    }

    public void Dispose()
    {
        if (Pager is not null)
        {
            StopPager();
        }

        _owned?.Dispose();
        Source?.Dispose();
        _storeProcesses.ForEach(process => process.Dispose());
        foreach (var store in Stores)
        {
            store.Dispose();
        }

        Certificate.Dispose();
        System.IO.Directory.Delete(Directory, recursive: true);
    }

    /// <summary>What the pager is about, for whoever wonders why something does not come.</summary>
    private string Describe()
    {
        if (Pager is null)
        {
            return _process?.Describe() ?? "";
        }

        var states = Enumerable.Range(0, (int)Pages).Select(page => Table[page]).CountBy(entry => entry).Select(
            e => $"{e.Key.State} at {Table.Places.First(e.Key.Sub)}, {Table.Places.Second(e.Key.Sub)}: {e.Value}");
        var stores = _remote.Select(r => $"{r.Index}: {r.Problem ?? "connected"}, {r.Demand.Outstanding} and {r.Prefetch.Outstanding} pages under way");
        return $"{Pager.Snapshot()}\nPages: {string.Join("; ", states)}\nStores: {string.Join("; ", stores)}";
    }

    /// <summary>A machine has its firmware and its program besides.</summary>
    private static long PagesOf(Player player, long used) => used + (player == Player.Kvm ? 32 << 8 : 2_000);

    private void Open(bool resume)
    {
        _table = new(Pages);
        _packed = PackedPages.Open(Directory, Pages);
        (_ram, _uffds) = Attach(Process, Pages, resume);
        foreach (var store in Stores)
        {
            var remote = new RemoteStore(store.Options(Certificate));
            if (!Gone.Contains(store.Index))
            {
                remote.Start();
            }

            _remote.Add(remote);
        }
    }

    /// <summary>How long a sub-host may owe an answer.</summary>
    public TimeSpan AnswerTimeout { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>Has a sub-host's worker end and go on in a process of its own, which can be frozen. Before there is a pager.</summary>
    public StoreProcess MoveToProcess(int store)
    {
        Stores[store].Stop();
        var process = new StoreProcess(this, Stores[store]);
        _storeProcesses.Add(process);
        return process;
    }

    public static (GuestRam Ram, UserfaultfdSet Uffds) Attach(IPagedProcess process, long pages, bool registered)
    {
        var ram = OpenRam(process, pages);
        using var handle = PidFd.Open(process.ProcessId);
        List<Userfaultfd> uffds = [.. process.UffdNumbers.Select(number => new Userfaultfd(handle.GetFd(number)))];
        if (registered)
        {
            // A restarted worker finds them in some order.
            uffds.Reverse();
            return (ram, UserfaultfdSet.Find(ram, uffds, PieceShift(uffds.Count)));
        }

        uffds.ForEach(uffd => uffd.Api(UffdFeatures.Paging));
        return (ram, Register(ram, uffds));
    }

    public static GuestRam OpenRam(IPagedProcess process, long pages) =>
        new([new RamBlock("ram", 0, pages, process.Address, SparseFile.Open(process.RamPath, write: true), process.RamPath)], []);

    public static UserfaultfdSet Register(GuestRam ram, IReadOnlyList<Userfaultfd> uffds) =>
        UserfaultfdSet.Register(ram, uffds, PieceShift(uffds.Count));

    /// <summary>Of several, each has small pieces, so that whatever is done to pages meets their borders often.</summary>
    private static int PieceShift(int userfaultfds) => userfaultfds == 1 ? 0 : 5;
}
