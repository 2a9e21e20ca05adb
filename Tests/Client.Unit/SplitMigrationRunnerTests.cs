using FCtrans.Contracts;

namespace FCtrans.Client.Unit.Tests;

/// <summary>The order of things in a split migration, and what is left after each way it can fail. Real SSH, fake agents.</summary>
public sealed class SplitMigrationRunnerTests : IAsyncLifetime
{
    private const ulong Gib = 1UL << 30;

    private readonly FakeHost[] _hosts = [new(), new(), new(), new()];
    private KvmHostConnection[] _connections = [];
    private readonly System.Collections.Concurrent.ConcurrentQueue<SplitMigrationProgress> _seen = [];

    private FakeHost Source => _hosts[0];

    private FakeHost Main => _hosts[1];

    public async Task InitializeAsync()
    {
        _connections = await Task.WhenAll(_hosts.Select(h => h.ConnectAsync()));
        SetVm(NewVm());
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
    public async Task Each_worker_is_told_of_those_that_it_meets_and_the_figures_come_back()
    {
        Source.Play(
            MigrationState.Preparing, MigrationState.PreCopy,
            new MigrationStatus { State = MigrationState.Completed, DowntimeMilliseconds = 12.5, TotalSeconds = 3 });
        SplitMigrationOutcome outcome = await RunAsync(Request());

        Assert.Equal(12.5, outcome.Migration.DowntimeMilliseconds);
        Assert.Matches("^[0-9a-f]{32}$", outcome.SplitId);
        Assert.Contains(_seen, p => p.Status?.State == MigrationState.PreCopy);

        WorkerSpec source = Assert.Single(Source.Workers);
        WorkerSpec main = Assert.Single(Main.Workers);
        WorkerSpec sub = Assert.Single(_hosts[3].Workers);
        Assert.All((WorkerSpec[])[source, main, sub], s =>
        {
            Assert.Equal(outcome.SplitId, s.SplitId);
            Assert.Equal("big", s.VmName);
            Assert.Equal([("ram0", 4 * Gib)], s.RamBlocks.Select(b => (b.Id, b.SizeBytes)));
            Assert.True(s.Tls);
            Assert.True(s.TrackUnused);
        });
        Assert.Equal((4321, "/run/qmp"), (source.VmProcessId, source.MonitorPath));
        Assert.Equal(
            [
                (WorkerRole.Main, Main.Name, "127.0.0.1", 4000u, Print(WorkerRole.Main, Main), 0u),
                (WorkerRole.Sub, _hosts[2].Name, "127.0.0.1", 4000u, Print(WorkerRole.Sub, _hosts[2]), 0u),
                (WorkerRole.Sub, _hosts[3].Name, "127.0.0.1", 4000u, Print(WorkerRole.Sub, _hosts[3]), 1u),
            ],
            source.Peers.Select(p => (p.Role, p.Host, p.Address, p.Port, p.Thumbprint, p.SubIndex)));
        Assert.Equal([WorkerRole.Source, WorkerRole.Sub, WorkerRole.Sub], main.Peers.Select(p => p.Role));
        Assert.Equal(Print(WorkerRole.Source, Source), main.Peers[0].Thumbprint);
        Assert.Equal(["qemu-system-x86_64", "-m", "4096"], main.QemuCommandLine);
        Assert.Equal(Gib, main.MainMemoryBytes);
        Assert.Equal("127.0.0.1", main.ListenAddress);
        Assert.Equal(
            [Print(WorkerRole.Source, Source), Print(WorkerRole.Main, Main)], sub.Peers.Select(p => p.Thumbprint));
    }

    [Fact]
    public async Task A_worker_that_can_not_start_takes_everything_back()
    {
        Main.Fail("StartWorker", "FailedPrecondition there is no QEMU here");
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(() => RunAsync(Request()));
        Assert.Equal("MigrationNotStarted", e.ErrorId);
        Assert.Contains(Main.Name, e.Message);
        Assert.Contains("there is no QEMU here", e.Message);
        Assert.All(_hosts, h => Assert.Empty(h.Workers));
        Assert.DoesNotContain("StartWorker Source", Source.Calls);
    }

    [Fact]
    public async Task A_sub_host_that_fails_to_prepare_takes_everything_back()
    {
        _hosts[3].Fail("PrepareWorker", "ResourceExhausted the disk is full");
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(() => RunAsync(Request()));
        Assert.Equal("MigrationNotStarted", e.ErrorId);
        Assert.All(_hosts, h => Assert.Empty(h.Workers));
    }

    [Fact]
    public async Task A_migration_that_failed_leaves_no_worker()
    {
        Source.Play(MigrationState.PreCopy, new MigrationStatus { State = MigrationState.Failed, Error = "the sub-host went away" });
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(() => RunAsync(Request()));
        Assert.Equal("MigrationFailed", e.ErrorId);
        Assert.Contains("the sub-host went away", e.Message);
        Assert.All(_hosts, h => Assert.Empty(h.Workers));
    }

    [Fact]
    public async Task Watching_goes_on_when_the_worker_connection_breaks()
    {
        Source.Play(MigrationState.PreCopy, "cut", MigrationState.SwitchOver, "cut", MigrationState.Completed);
        Assert.Equal(MigrationState.Completed, (await RunAsync(Request())).Migration.State);
        Assert.Equal(3, Source.Calls.Count(c => c.StartsWith("Watch", StringComparison.Ordinal)));
    }

    [Fact]
    public async Task Watching_goes_on_when_the_whole_host_is_out_of_reach_for_a_while()
    {
        Source.Play(MigrationState.PreCopy);
        Task<SplitMigrationOutcome> running = RunAsync(Request());
        WaitFor(() => _seen.Any(p => p.Status?.State == MigrationState.PreCopy));
        Source.Server.Stop();
        Source.Play(MigrationState.Completed);
        Source.Server.Start(again: true);
        Assert.Equal(MigrationState.Completed, (await running).Migration.State);
    }

    [Fact]
    public async Task Stopping_gives_the_migration_up_and_leaves_no_worker()
    {
        Source.Play(MigrationState.PreCopy);
        using var stop = new CancellationTokenSource();
        Task<SplitMigrationOutcome> running = RunAsync(Request(), stop.Token);
        WaitFor(() => _seen.Any(p => p.Status?.State == MigrationState.PreCopy));
        stop.Cancel();
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(() => running);
        Assert.Equal("MigrationAborted", e.ErrorId);
        Assert.Contains("Abort", Source.Calls);
        Assert.All(_hosts, h => Assert.Empty(h.Workers));
    }

    [Fact]
    public async Task Stopping_too_late_changes_nothing()
    {
        Source.Play(MigrationState.SwitchOver);
        Source.Fail("Abort", "FailedPrecondition it is committed");
        using var stop = new CancellationTokenSource();
        Task<SplitMigrationOutcome> running = RunAsync(Request(), stop.Token);
        WaitFor(() => _seen.Any(p => p.Status?.State == MigrationState.SwitchOver));
        stop.Cancel();
        WaitFor(() => Source.Calls.Contains("Abort"));
        Source.Play(MigrationState.Completed);
        Assert.Equal(MigrationState.Completed, (await running).Migration.State);
        Assert.Single(Main.Workers);
    }

    [Fact]
    public async Task The_time_allowed_is_kept()
    {
        Source.Play(MigrationState.PreCopy);
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(
            () => RunAsync(Request() with { Timeout = TimeSpan.FromMilliseconds(300), Mode = MigrationMode.PreCopy }));
        Assert.Equal("MigrationTimeout", e.ErrorId);
        Assert.All(_hosts, h => Assert.Empty(h.Workers));
    }

    /// <summary>The source counts the time itself, since PowerShell may be gone.</summary>
    [Theory]
    [InlineData(MigrationMode.PreCopy)]
    [InlineData(MigrationMode.Hybrid)]
    public async Task The_time_allowed_is_told_to_the_source_and_its_end_is_called_that(MigrationMode mode)
    {
        SplitMigrationRequest request = Request() with { Timeout = TimeSpan.FromHours(1), Mode = mode };
        Source.Play(new MigrationStatus { State = MigrationState.Failed, TimeIsOver = true, Error = "over" });
        Assert.Equal("MigrationTimeout", (await Assert.ThrowsAsync<FCtransException>(() => RunAsync(request))).ErrorId);

        Source.Play(MigrationState.Completed);
        await RunAsync(request);
        Assert.Equal(3_600_000, Assert.Single(Source.Workers).PreCopyLimitMilliseconds);
    }

    [Fact]
    public async Task When_the_source_worker_is_gone_the_main_host_says_whether_the_vm_runs_there()
    {
        Source.Play(new MigrationStatus { State = MigrationState.SwitchOver, CommitSent = true });
        Main.Write("status-Main.json", new WorkerStatus { Paging = new PagingStatus { VmRunning = true } });
        Task<SplitMigrationOutcome> running = RunAsync(Request());
        WaitFor(() => _seen.Any(p => p.Status is { CommitSent: true }));
        Directory.Delete(Source.PathOf("workers"), recursive: true);
        Source.Play("cut");
        Assert.Equal(MigrationState.Completed, (await running).Migration.State);
        Assert.Single(Main.Workers);
    }

    [Fact]
    public async Task When_nobody_can_say_whether_it_was_committed_nothing_is_removed()
    {
        Source.Play(new MigrationStatus { State = MigrationState.SwitchOver, CommitSent = true });
        Task<SplitMigrationOutcome> running = RunAsync(Request());
        WaitFor(() => _seen.Any(p => p.Status is { CommitSent: true }));
        Directory.Delete(Source.PathOf("workers"), recursive: true);
        Source.Play("cut");
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(() => running);
        Assert.Equal("MigrationOutcomeUnknown", e.ErrorId);
        Assert.Single(Main.Workers);
        Assert.Single(_hosts[2].Workers);
    }

    [Fact]
    public async Task What_can_be_seen_beforehand_is_refused_before_anything_is_made()
    {
        SplitMigrationRequest request = Request();
        Assert.Equal("VmNotFound", await Refused(request with { VmName = "small" }));
        Assert.Equal("MainHostIsSource", await Refused(request with { MainHost = _connections[0] }));
        Assert.Equal("HostNamedTwice", await Refused(request with { SubHosts = [_connections[2], _connections[2]] }));
        Assert.Equal("HostNamedTwice", await Refused(request with { SubHosts = [_connections[1]] }));
        Assert.Equal("HostNamedTwice", await Refused(request with { SubHosts = [_connections[0]] }));
        Assert.Equal("SubHostsTooSmall", await Refused(request with { SubHosts = [] }));
        Assert.Equal("CopiesImpossible", await Refused(request with { Copies = 2, SubHosts = [_connections[2]] }));
        Assert.Equal("MainMemoryInvalid", await Refused(request with { MainMemoryBytes = _ => 4096 }));

        // Over a ProxyCommand the host does not learn under which address it was reached.
        string host = File.ReadAllText(_hosts[3].PathOf("host.json"));
        _hosts[3].Write("host.json", new HostInfo { HostName = _hosts[3].Name, AgentVersion = "0.0.1", RamDirectoryFreeBytes = 8 * Gib });
        using (KvmHostConnection unknown = await _hosts[3].ConnectAsync())
        {
            Assert.Equal("DataAddressUnknown", await Refused(request with { SubHosts = [_connections[2], unknown] }));
        }

        File.WriteAllText(_hosts[3].PathOf("host.json"), host);

        VmInfo vm = NewVm();
        vm.CanSplit = false;
        vm.Obstacles.Add(new VmObstacle { Code = "PrivateMemory", Reason = "Its memory is private.", Remedy = "Add share=on." });
        SetVm(vm);
        Assert.Equal("VmCannotBeSplit", await Refused(request));

        vm = NewVm();
        vm.MemoryBytes = vm.ResidentBytes = 100 * Gib;
        SetVm(vm);
        Assert.Equal("SubHostsTooSmall", await Refused(request with { MainMemoryBytes = _ => Gib }));
        Assert.Equal("MainHostTooSmall", await Refused(request with { MainMemoryBytes = _ => 50 * Gib }));

        SetVm(NewVm());
        HostInfo lacking = _connections[1].Info.Clone();
        lacking.Capabilities.Add(new HostCapability { Name = "userfaultfd", Detail = "EPERM", Remedy = "sysctl vm.unprivileged_userfaultfd=1" });
        Main.Write("host.json", lacking);
        Assert.Equal("HostCapabilityMissing", await Refused(request));
        Assert.All(_hosts, h => Assert.Empty(h.Workers));
    }

    [Fact]
    public async Task A_guest_that_may_outgrow_the_sub_hosts_is_a_warning()
    {
        VmInfo vm = NewVm();
        vm.MemoryBytes = 100 * Gib;
        SetVm(vm);
        SplitMigrationPlan plan = await SplitMigrationPlan.MakeAsync(Request() with { MainMemoryBytes = _ => Gib }, default);
        Assert.Contains("99 GiB", Assert.Single(plan.Warnings));
    }

    private static VmInfo NewVm()
    {
        var vm = new VmInfo
        {
            Name = "big", ProcessId = 4321, MemoryBytes = 4 * Gib, ResidentBytes = 2 * Gib, MonitorPath = "/run/qmp", CanSplit = true,
        };
        vm.RamBlocks.Add(new RamBlockInfo { Id = "ram0", SizeBytes = 4 * Gib, Shared = true });
        vm.CommandLine.AddRange(["qemu-system-x86_64", "-m", "4096"]);
        return vm;
    }

    private void SetVm(VmInfo vm)
    {
        var reply = new ListVmsReply();
        reply.Vms.Add(vm);
        Source.Write("vms.json", reply);
    }

    private static string Print(WorkerRole role, FakeHost host) => $"print-{role}-{host.Name}";

    private static void WaitFor(Func<bool> condition) =>
        Assert.True(SpinWait.SpinUntil(condition, TimeSpan.FromSeconds(30)));

    private SplitMigrationRequest Request() => new()
    {
        Source = _connections[0],
        VmName = "big",
        MainHost = _connections[1],
        SubHosts = [_connections[2], _connections[3]],
        MainMemoryBytes = guest => guest / 4,
    };

    private async Task<SplitMigrationOutcome> RunAsync(SplitMigrationRequest request, CancellationToken cancellation = default)
    {
        SplitMigrationPlan plan = await SplitMigrationPlan.MakeAsync(request, CancellationToken.None);
        return await new SplitMigrationRunner(plan, _seen.Enqueue).RunAsync(cancellation);
    }

    private static async Task<string> Refused(SplitMigrationRequest request) =>
        (await Assert.ThrowsAsync<FCtransException>(() => SplitMigrationPlan.MakeAsync(request, default))).ErrorId;
}
