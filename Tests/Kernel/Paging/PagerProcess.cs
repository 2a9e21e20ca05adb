using System.Diagnostics;
using System.Globalization;
using System.Net;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Transport;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>A pager in a process of its own, as a main worker is; for tests that park it at a failure point or kill it.</summary>
internal sealed class PagerProcess : IDisposable
{
    private readonly Process _process;

    private PagerProcess(Process process) => _process = process;

    public bool HasExited => _process.HasExited;

    public static PagerProcess Start(PagingLab lab, bool resume, string? failurePoints)
    {
        var start = new ProcessStartInfo("dotnet") { RedirectStandardInput = true, RedirectStandardOutput = true };
        List<object> arguments =
        [
            "exec", typeof(PagerProcess).Assembly.Location, "pager", resume, lab.Process.ProcessId, string.Join(',', lab.Process.UffdNumbers), lab.Process.RamPath,
            lab.Process.Address.Value, lab.Pages, lab.Limit, lab.Directory, lab.Tls, lab.TrackUnused, lab.Copies,
            lab.Source?.Left ?? 0, lab.Source?.Port ?? 0, lab.Source?.Thumbprint ?? "",
        ];
        foreach (var store in lab.Stores)
        {
            arguments.AddRange([store.ReachedAt ?? store.Port, store.Thumbprint]);
        }

        arguments.ForEach(a => start.ArgumentList.Add(Convert.ToString(a, CultureInfo.InvariantCulture)!));
        start.Environment["FCTRANS_FAILURE_DIRECTORY"] = lab.Directory;
        if (failurePoints is not null)
        {
            start.Environment["FCTRANS_FAILURE_POINTS"] = failurePoints;
        }

        return new(Process.Start(start)!);
    }

    /// <summary>Waits until it serves faults.</summary>
    public void WaitUntilPaging()
    {
        if (_process.StandardOutput.ReadLine() != "paging")
        {
            throw new IOException("The pager's process has not started paging.");
        }
    }

    /// <summary>Page-ins, page-outs, pages taken back, clean drops, errors, remote pages with too few copies, copies that count for nothing, pages
    /// that sub-hosts took from the source, pages that the source has, faults that wait, faults that waited for a sub-host's page, pages asked for ahead.</summary>
    public long[] Figures()
    {
        _process.StandardInput.WriteLine();
        string line = _process.StandardOutput.ReadLine() ?? throw new IOException("The pager's process has ended.");
        return [.. line.Split(' ').Select(p => long.Parse(p, CultureInfo.InvariantCulture))];
    }

    /// <summary>As <see cref="Figures"/>; true also when it has ended, as one does that is killed at a step which it may reach at any time.</summary>
    public bool HasEndedOr(Predicate<long[]> figures)
    {
        try
        {
            return figures(Figures());
        }
        catch (IOException)
        {
            return true;
        }
    }

    /// <summary>How often its threads begin to wait within a time: each but the last is a wake-up.</summary>
    public long WakesWithin(TimeSpan time)
    {
        Dictionary<string, long> before = Waits();
        Thread.Sleep(time);
        return Waits().Sum(thread => thread.Value - before.GetValueOrDefault(thread.Key));
    }

    public void Kill()
    {
        _process.Kill();
        _process.WaitForExit();
    }

    public void WaitForExit()
    {
        if (!_process.WaitForExit(TimeSpan.FromSeconds(60)))
        {
            throw new TimeoutException($"The pager's process has not ended within 60 s. {Describe()}");
        }
    }

    /// <summary>What it is about, for whoever wonders why it hangs.</summary>
    public string Describe()
    {
        string states = string.Join(
            ", ", Directory.GetDirectories($"/proc/{_process.Id}/task").Select(task => File.ReadAllText(Path.Combine(task, "stat")).Split(' ')[2]));
        var figures = Task.Run(() => string.Join(' ', Figures()));
        return $"Its threads: {states}. Its figures: {(figures.Wait(TimeSpan.FromSeconds(5)) ? figures.Result : "no answer")}.";
    }

    public void Dispose()
    {
        Kill();
        _process.Dispose();
    }

    /// <summary>By thread.</summary>
    private Dictionary<string, long> Waits()
    {
        var waits = new Dictionary<string, long>();
        foreach (string thread in Directory.EnumerateDirectories($"/proc/{_process.Id}/task"))
        {
            try
            {
                string line = File.ReadLines(Path.Combine(thread, "status")).First(l => l.StartsWith("voluntary_ctxt_switches:", StringComparison.Ordinal));
                waits[thread] = long.Parse(line.Split(':')[1], CultureInfo.InvariantCulture);
            }
            catch (IOException)
            {
                // It has ended in between.
            }
        }

        return waits;
    }

    /// <summary>The process itself.</summary>
    public static int Run(string[] a)
    {
        bool resume = bool.Parse(a[0]);
        long pages = long.Parse(a[5], CultureInfo.InvariantCulture);
        var guest = new Served(
            int.Parse(a[1], CultureInfo.InvariantCulture), [.. a[2].Split(',').Select(n => int.Parse(n, CultureInfo.InvariantCulture))], a[3],
            new HostAddress(ulong.Parse(a[4], CultureInfo.InvariantCulture)));
        var (ram, uffds) = PagingLab.Attach(guest, pages, resume);
        var certificate = WorkerCertificate.Load(a[7]);
        var stores = new List<RemoteStore>();
        long left = long.Parse(a[11], CultureInfo.InvariantCulture);
        for (int i = 14; i < a.Length; i += 2)
        {
            var store = new RemoteStore(new()
            {
                Index = stores.Count,
                Host = $"sub{stores.Count}",
                Address = IPAddress.Loopback,
                Port = int.Parse(a[i], CultureInfo.InvariantCulture),
                Thumbprint = a[i + 1],
                Certificate = bool.Parse(a[8]) ? certificate : null,
                SplitId = PagingLab.SplitId,
                Pages = pages,
            });
            store.Start();
            stores.Add(store);
        }

        RemoteStore? source = null;
        var table = new PageTable(pages);
        var packed = PackedPages.Open(a[7], pages);
        if (!resume)
        {
            PagingLab.SetPacked(table, packed);
        }

        if (left > 0)
        {
            source = new(TestSource.Options(stores.Count, int.Parse(a[12], CultureInfo.InvariantCulture), a[13], pages, bool.Parse(a[8]) ? certificate : null));
            source.Start();
            stores.Add(source);
            if (!resume)
            {
                table.SetRemote(new(0, left), source.Index);
            }
        }

        var options = new PagerOptions
        {
            Ram = ram,
            Uffds = uffds,
            Table = table,
            Packed = packed,
            Stores = stores,
            LimitPages = long.Parse(a[6], CultureInfo.InvariantCulture),
            TrackUnused = bool.Parse(a[9]),
            Copies = int.Parse(a[10], CultureInfo.InvariantCulture),
            MayHavePairs = a[10] != "1",
            StateDirectory = Path.Combine(a[7], "state"),
            CopyPatience = TimeSpan.FromMilliseconds(100),
            Lost = resume ? LostPages.Read(Path.Combine(a[7], "state"), pages) : null,
        };
        var pager = resume ? Pager.Resume(options) : new Pager(options);
        table.Away = (resume ? AwayPages.TryOpen(options.StateDirectory, pages) : null) ?? AwayPages.Create(options.StateDirectory, table);
        pager.Start();
        Console.WriteLine("paging");
        if (source is not null)
        {
            pager.DrainSource(source, source.Retire);
        }

        while (Console.ReadLine() is not null)
        {
            var f = pager.Snapshot();
            Console.WriteLine($"{f.PageIns} {f.PageOuts} {f.TakenBack} {f.CleanDrops} {f.Errors} {f.ShortPages} {f.StaleCopies} {pager.TakenBySubHosts} {(source is null ? 0 : pager.CopiesAt(source.Index))} {f.Outstanding} {f.RemoteLatency.Count} {f.Prefetched}");
        }

        return 0;
    }

    private sealed record Served(int ProcessId, IReadOnlyList<int> UffdNumbers, string RamPath, HostAddress Address) : IPagedProcess
    {
        public void Dispose()
        {
        }
    }
}
