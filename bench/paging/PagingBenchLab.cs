using System.Globalization;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;

namespace FCtrans.Bench;

/// <summary>The stores that all measurements of a run share, and one measurement: a new guest, a pager, one pass over its memory.</summary>
internal sealed class PagingBenchLab : IDisposable
{
    private readonly string _directory;
    private readonly long _pages;
    private readonly string _guest = TalkingProgram.Compile("guest");
    private readonly string _floor = TalkingProgram.Compile("floor");
    private readonly WorkerCertificate _certificate;
    private readonly TalkingProgram _floorStore;
    private readonly TalkingProgram _plainStore;
    private readonly TalkingProgram _tlsStore;
    private readonly string _floorPort;
    private readonly string[] _plain;
    private readonly string[] _tls;

    public PagingBenchLab(string directory, long pages)
    {
        _directory = directory;
        _pages = pages;
        _certificate = WorkerCertificate.Create(directory);
        _floorStore = new(_floor, "store", pages);
        _plainStore = PagingStore.Start(Sub("plain"), pages, false, _certificate.Thumbprint);
        _tlsStore = PagingStore.Start(Sub("tls"), pages, true, _certificate.Thumbprint);
        _floorPort = _floorStore.Expect("port")[0];
        _plain = _plainStore.Expect("store");
        _tls = _tlsStore.Expect("store");
    }

    /// <param name="kind">serial, many or zero: as floor.c says.</param>
    public Touched Floor(string kind, int threads, string order)
    {
        using var guest = new PagingGuest(_guest, _directory, _pages);
        object[] arguments = [kind, guest.ProcessId, guest.Userfaultfds[0], guest.Address.Value, guest.Pages, _floorPort];
        using var pager = new TalkingProgram(_floor, kind == "zero" ? arguments[..^1] : arguments);
        pager.Expect("paging");
        return guest.Touch(threads, order, kind == "zero" ? "fresh" : "remote", 0, _pages);
    }

    /// <summary>Every page lies at the store.</summary>
    public Touched Ours(bool tls, int threads, string order, bool prefetch, int userfaultfds = 1)
    {
        using var guest = new PagingGuest(_guest, _directory, _pages, userfaultfds);
        using PagingUnderTest pager = Start(guest, tls, _pages, prefetch);
        return guest.Touch(threads, order, "remote", 0, _pages);
    }

    /// <summary>What pages wait that are touched in no order while another thread walks through remote pages.</summary>
    public Touched BesideWalk(bool prefetch)
    {
        using var guest = new PagingGuest(_guest, _directory, _pages);
        using PagingUnderTest pager = Start(guest, false, _pages, prefetch);
        return guest.TouchBesideWalk();
    }

    /// <summary>No page has ever been used.</summary>
    public Touched Fresh()
    {
        using var guest = new PagingGuest(_guest, _directory, _pages);
        using PagingUnderTest pager = Start(guest, false, 0, true);
        return guest.Touch(1, "random", "fresh", 0, _pages);
    }

    /// <summary>Half of the memory fits here; the guest touches all of it, some far more often. Touches a second, and page-ins for each.</summary>
    /// <param name="order">skewed; or swept: what it touches often would fit, but beside that it reads through more than does.</param>
    public (double Rate, double PageIns) Skewed(EvictionPolicy policy, string order)
    {
        long touches = _pages * 15;
        using var guest = new PagingGuest(_guest, _directory, _pages);
        // A store of its own: the guest writes.
        using TalkingProgram program = PagingStore.Start(Sub("skewed-" + Guid.NewGuid().ToString("N")), _pages, false, _certificate.Thumbprint);
        string[] store = program.Expect("store");
        using var pager = new PagingUnderTest(
            guest, int.Parse(store[0], CultureInfo.InvariantCulture), store[1], null, _pages, true, _pages / 2, policy);
        Touched touched = guest.Touch(2, order, "remote", 0, touches);
        return (touched.PagesPerSecond(touches), pager.Pager.Snapshot().PageIns / (double)touches);
    }

    /// <summary>
    /// The guest has touched all of its memory, half of which fits here, and touches nothing any more. Seconds of CPU that this process
    /// then takes in a minute, the pager in it, and how often a second its threads wake up.
    /// </summary>
    public (double CpuSeconds, double Wakes) Quiet(TimeSpan time)
    {
        using var guest = new PagingGuest(_guest, _directory, _pages);
        string[] store = _tls;
        using var pager = new PagingUnderTest(
            guest, int.Parse(store[0], CultureInfo.InvariantCulture), store[1], _certificate, _pages, true, _pages / 2);
        guest.Touch(1, "ordered", "remote", 0, _pages);
        // What is too much leaves, and the last pages asked for ahead come.
        Thread.Sleep(TimeSpan.FromSeconds(2));
        var before = Wakes();
        TimeSpan cpu = Environment.CpuUsage.TotalTime;
        Thread.Sleep(time);
        double minutes = time.TotalMinutes;
        return ((Environment.CpuUsage.TotalTime - cpu).TotalSeconds / minutes, Wakes().Sum(thread => thread.Value - before.GetValueOrDefault(thread.Key)) / time.TotalSeconds);
    }

    public void Dispose()
    {
        _floorStore.Dispose();
        _plainStore.Dispose();
        _tlsStore.Dispose();
        _certificate.Dispose();
    }

    /// <summary>Times that each thread of this process gave up the CPU to wait, so far; one that has ended in between is not counted.</summary>
    private static Dictionary<string, long> Wakes() => Directory.EnumerateDirectories("/proc/self/task").ToDictionary(
        static thread => thread,
        static thread => long.Parse(
            File.ReadLines(Path.Combine(thread, "status")).First(static line => line.StartsWith("voluntary_ctxt_switches:", StringComparison.Ordinal)).Split(':')[1],
            CultureInfo.InvariantCulture));

    private PagingUnderTest Start(PagingGuest guest, bool tls, long remote, bool prefetch)
    {
        string[] store = tls ? _tls : _plain;
        return new(guest, int.Parse(store[0], CultureInfo.InvariantCulture), store[1], tls ? _certificate : null, remote, prefetch, _pages * 2);
    }

    private string Sub(string name) => Directory.CreateDirectory(Path.Combine(_directory, name)).FullName;
}
