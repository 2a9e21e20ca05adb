using System.Collections.Concurrent;
using System.Net;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Paging;

/// <summary>A sub-host's store on the loopback, without TLS, that answers as the test says.</summary>
internal static class FakeStore
{
    public const string SplitId = "0123456789abcdef0123456789abcdef";
    public const long Pages = 4096;
    public const int Index = 3;

    /// <param name="serve">Serves one connection of the main host's.</param>
    /// <param name="port">0: any that is free.</param>
    public static PeerListener Listen(Action<FrameConnection, PeerHello> serve, int port = 0)
    {
        var listener = new PeerListener(
            new()
            {
                Address = IPAddress.Loopback,
                Port = port,
                Role = WorkerRole.Sub,
                SplitId = SplitId,
                Pages = Pages,
                Certificate = null,
                Peers = new Dictionary<string, WorkerRole> { ["main"] = WorkerRole.Main },
            },
            serve);
        listener.Start();
        return listener;
    }

    /// <summary>How the main host reaches the one that listens there.</summary>
    public static RemoteStoreOptions Options(int port) => new()
    {
        Index = Index,
        Host = "sub3",
        Address = IPAddress.Loopback,
        Port = port,
        Thumbprint = "",
        Certificate = null,
        SplitId = SplitId,
        Pages = Pages,
    };
}

/// <summary>What came of the pages that were demanded of a <see cref="FakeStore"/>, which has all of them.</summary>
internal sealed unsafe class DemandedArrivals : IPageArrivals
{
    public BlockingCollection<(int Sub, long Page, bool ForWrite, byte Content)> Came { get; } = [];

    /// <summary>Reads what the channel is answered until something has come.</summary>
    public void ReadFrom(DemandChannel channel, TimeSpan patience) => Assert.True(SpinWait.SpinUntil(
        () =>
        {
            channel.ReadAnswers();
            return Came.Count > 0;
        },
        patience));

    public void Arrived(int sub, long page, bool forWrite, byte* content)
    {
        Assert.Equal(content[0], content[PageIndex.PageSize - 1]);
        Came.Add((sub, page, forWrite, content[0]));
    }

    public void ArrivedEarly(int sub, PageRange range, bool forWrite, byte* content) => Assert.Fail("Nothing was asked for early.");

    public void Missing(int sub, long page) => Assert.Fail("The store has it.");

    public bool IsElsewhere(int sub, long page) => false;

    public void Unanswered(int sub, PageRange range) => Assert.Fail("Nobody else has it.");
}
