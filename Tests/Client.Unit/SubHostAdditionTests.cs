using FCtrans.Contracts;

namespace FCtrans.Client.Unit.Tests;

/// <summary>A sub-host that is added to a split VM: who is told what, and that nothing is left of one that could not be. Real SSH, fake agents.</summary>
public sealed class SubHostAdditionTests : IAsyncLifetime
{
    private const string SplitId = "00112233445566778899aabbccddeeff";

    private readonly FakeHost[] _hosts = [new(), new()];
    private KvmHostConnection[] _connections = [];

    private FakeHost Main => _hosts[0];

    private FakeHost New => _hosts[1];

    public async Task InitializeAsync()
    {
        _connections = await Task.WhenAll(_hosts.Select(h => h.ConnectAsync()));
        Directory.CreateDirectory(Main.PathOf("workers"));
        Say("sub1", "serving");
    }

    public Task DisposeAsync()
    {
        foreach (KvmHostConnection connection in _connections)
        {
            connection.Dispose();
        }

        foreach (FakeHost host in _hosts)
        {
            host.Dispose();
        }

        return Task.CompletedTask;
    }

    [Fact]
    public async Task The_new_worker_lets_the_main_host_in_and_the_main_host_is_told_where_it_is()
    {
        // It was given up before, and may have what nobody asks for any more.
        Say(New.Name, "lost");
        (WorkerStatus status, Peer peer) = await AddAsync();
        Assert.InRange(Array.IndexOf(New.Calls, "RemoveWorker Sub"), 0, Array.IndexOf(New.Calls, "PrepareWorker Sub"));
        WorkerSpec spec = Assert.Single(New.Workers);
        Assert.Equal((SplitId, WorkerRole.Sub, "big", 8UL << 20), (spec.SplitId, spec.Role, spec.VmName, spec.StoreLimitBytes));
        Assert.Equal([("main-print", WorkerRole.Main)], spec.Peers.Select(p => (p.Thumbprint, p.Role)));
        Assert.Equal(("127.0.0.1", 4000u, 8UL << 20), (peer.Address, peer.Port, peer.FreeBytes));
        Assert.Contains(New.Name, status.Paging.SubHosts);
    }

    [Fact]
    public async Task A_host_that_the_main_host_does_not_take_is_cleared()
    {
        Main.Fail("AddSubHost", "FailedPrecondition The main host can't reach it: no route");
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(AddAsync);
        Assert.Equal("SubHostNotAdded", e.ErrorId);
        Assert.Contains("can't reach it: no route", e.Message);
        Assert.Empty(New.Workers);
    }

    /// <summary>By another name: it may serve the VM, and all that it has would go.</summary>
    [Fact]
    public async Task A_worker_that_was_there_before_is_left_alone()
    {
        New.Fail("PrepareWorker", "FailedPrecondition This host has a sub worker already");
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(AddAsync);
        Assert.Equal("SubHostNotAdded", e.ErrorId);
        Assert.DoesNotContain("RemoveWorker Sub", New.Calls);
    }

    /// <summary>The call was cut off, and the main host has the new one all the same.</summary>
    [Fact]
    public async Task What_the_main_host_says_in_the_end_counts()
    {
        Main.Fail("AddSubHost", "Unavailable the worker does not answer");
        Task<(WorkerStatus, Peer)> adding = AddAsync(TimeSpan.FromSeconds(60));
        SpinWait.SpinUntil(() => Main.Calls.Contains("AddSubHost"), TimeSpan.FromSeconds(30));
        Say(New.Name, "serving");
        await adding;
        Assert.Single(New.Workers);
        Assert.DoesNotContain("RemoveWorker Sub", New.Calls);
    }

    /// <summary>The call was cut off, and the main host does not say any more: it may use the new one, which therefore stays.</summary>
    [Fact]
    public async Task A_worker_that_may_be_in_use_is_left_where_it_is()
    {
        Main.Fail("AddSubHost", "Unavailable the worker does not answer");
        Task<(WorkerStatus, Peer)> adding = AddAsync(TimeSpan.FromSeconds(5));
        SpinWait.SpinUntil(() => Main.Calls.Contains("AddSubHost"), TimeSpan.FromSeconds(30));
        Main.Fail("GetStatus", "Unavailable the worker does not answer");
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(() => adding);
        Assert.Equal("SubHostOutcomeUnknown", e.ErrorId);
        Assert.Single(New.Workers);
        Assert.DoesNotContain("RemoveWorker Sub", New.Calls);
    }

    private Task<(WorkerStatus, Peer)> AddAsync() => AddAsync(TimeSpan.FromSeconds(1));

    private Task<(WorkerStatus, Peer)> AddAsync(TimeSpan patience)
    {
        var split = new WorkerSpec { SplitId = SplitId, Role = WorkerRole.Main, VmName = "big", Tls = true };
        split.RamBlocks.Add(new RamBlockSpec { Id = "ram0", SizeBytes = 1 << 30 });
        split.Peers.Add(new Peer { Role = WorkerRole.Sub, Host = "sub1", Address = "192.0.2.7" });
        return new SubHostAddition(_connections[0], split, _connections[1], 8 << 20) { Patience = patience }.RunAsync(default);
    }

    private void Say(string host, string state)
    {
        var status = new WorkerStatus { Thumbprint = "main-print", Paging = new PagingStatus { State = "paging" } };
        status.Paging.SubHosts.Add(host);
        status.Paging.SubHostStates.Add(state);
        Main.Write("status-Main.json", status);
    }
}
