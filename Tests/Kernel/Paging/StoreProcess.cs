using System.Diagnostics;
using System.Globalization;
using System.Net;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>A sub-host's worker in a process of its own, which can be made to hang: its connections stay, and it answers nothing.</summary>
internal sealed class StoreProcess : IDisposable
{
    private readonly Process _process;

    /// <param name="lab">Whose store it is.</param>
    /// <param name="store">Stopped: it goes on with its file, its port and its certificate.</param>
    public StoreProcess(PagingLab lab, TestStore store)
    {
        var start = new ProcessStartInfo("dotnet") { RedirectStandardInput = true, RedirectStandardOutput = true };
        foreach (object argument in (object[])[
            "exec", typeof(StoreProcess).Assembly.Location, "store", store.StoreDirectory, store.Port, lab.Pages, store.LimitPages, lab.Tls, lab.Certificate.Thumbprint])
        {
            start.ArgumentList.Add(Convert.ToString(argument, CultureInfo.InvariantCulture)!);
        }

        _process = Process.Start(start)!;
        if (_process.StandardOutput.ReadLine() != "serving")
        {
            throw new IOException("The store's process has not begun to serve.");
        }
    }

    /// <summary>Nothing in it runs any more until <see cref="Thaw"/>.</summary>
    public void Freeze() => Signal("-STOP");

    public void Thaw() => Signal("-CONT");

    public void Dispose()
    {
        _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
    }

    /// <summary>The process itself.</summary>
    public static int Run(string[] a)
    {
        long pages = long.Parse(a[2], CultureInfo.InvariantCulture);
        long limit = long.Parse(a[3], CultureInfo.InvariantCulture);
        using var certificate = WorkerCertificate.Load(a[0]);
        using var store = PageStore.Open(a[0], pages, limit);
        using var listener = new PeerListener(
            new()
            {
                Address = IPAddress.Loopback,
                Port = int.Parse(a[1], CultureInfo.InvariantCulture),
                Role = WorkerRole.Sub,
                SplitId = PagingLab.SplitId,
                Pages = pages,
                Certificate = bool.Parse(a[4]) ? certificate : null,
                Peers = new Dictionary<string, WorkerRole> { [a[5]] = WorkerRole.Main },
                LimitPages = limit,
            },
            new StoreServer(store, new SourceReader(_ => throw new IOException("There is no source."))).Serve);
        listener.Start();
        Console.WriteLine("serving");
        while (Console.ReadLine() is not null)
        {
        }

        return 0;
    }

    private void Signal(string signal)
    {
        using var kill = Process.Start("kill", [signal, _process.Id.ToString(CultureInfo.InvariantCulture)]);
        kill.WaitForExit();
        if (kill.ExitCode != 0)
        {
            throw new InvalidOperationException($"kill {signal} has failed.");
        }
    }
}
