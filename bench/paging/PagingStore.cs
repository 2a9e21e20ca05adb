using System.Globalization;
using System.Net;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;

namespace FCtrans.Bench;

/// <summary>A sub-host's store that has every page, in a process of its own: <c>FCtrans.Bench paging-store DIRECTORY PAGES TLS THUMBPRINT</c>.</summary>
internal static class PagingStore
{
    public const string SplitId = "00112233445566778899aabbccddeeff";

    /// <summary>Starts it; it says <c>store PORT THUMBPRINT</c>.</summary>
    public static TalkingProgram Start(string directory, long pages, bool tls, string mainThumbprint) =>
        new("dotnet", "exec", typeof(PagingStore).Assembly.Location, "paging-store", directory, pages, tls, mainThumbprint);

    /// <summary>The process itself.</summary>
    public static unsafe int Run(string[] arguments)
    {
        string directory = arguments[0];
        long pages = long.Parse(arguments[1], CultureInfo.InvariantCulture);
        bool tls = bool.Parse(arguments[2]);
        using var certificate = WorkerCertificate.Create(directory);
        using var store = PageStore.Open(directory, pages, pages);
        using var filler = store.OpenFiller();
        ulong* page = stackalloc ulong[(int)(PageIndex.PageSize / sizeof(ulong))];
        for (long i = 0; i < pages; i++)
        {
            page[0] = (ulong)i + 1;
            store.Put(new(i, 1), (byte*)page, filler);
        }

        using var listener = new PeerListener(
            new()
            {
                Address = IPAddress.Loopback,
                Role = WorkerRole.Sub,
                SplitId = SplitId,
                Pages = pages,
                Certificate = tls ? certificate : null,
                Peers = new Dictionary<string, WorkerRole> { [arguments[3]] = WorkerRole.Main },
                LimitPages = pages,
            },
            new StoreServer(store).Serve);
        listener.Start();
        Console.WriteLine($"store {listener.Port} {certificate.Thumbprint}");
        Console.In.ReadLine();
        return 0;
    }
}
