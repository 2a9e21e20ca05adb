using FCtrans.Contracts;

namespace FCtrans.Client.Unit.Tests;

/// <summary>What is in the way of a migration is said all at once, each with what to do. Real SSH, fake agents.</summary>
public sealed class SplitMigrationForecastTests : IAsyncLifetime
{
    private const ulong Gib = 1UL << 30;

    private readonly FakeHost[] _hosts = [new(), new(), new()];
    private KvmHostConnection[] _connections = [];

    public async Task InitializeAsync() => _connections = await Task.WhenAll(_hosts.Select(h => h.ConnectAsync()));

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
    public async Task What_can_be_moved_has_every_precondition_and_each_host_is_reached_by_those_that_will_connect_to_it()
    {
        SetVm(new VmInfo { Manager = "" });
        SplitMigrationForecast forecast = await ForecastAsync(MigrationMode.Hybrid);
        Assert.All(forecast.Checks, check => Assert.True(check.Passed, $"{check}"));
        Assert.True(forecast.CanMigrate);
        string[] names = [.. forecast.Checks.Select(c => c.Name)];
        foreach (string name in (string[])["vm", "parts", "data-address", "main-memory", "room", "sub-room", "plan"])
        {
            Assert.Contains(name, names);
        }

        // Of source, main host and sub-host: to the main host 1, to the sub-host 2, to the source 2.
        Assert.Equal(5, names.Count(n => n == "reachable"));
        Assert.Equal(3, (await ForecastAsync(MigrationMode.PreCopy)).Checks.Count(c => c.Name == "reachable"));
    }

    [Fact]
    public async Task All_that_is_in_the_way_is_said_at_once()
    {
        // A domain of libvirt's, too large for both, to hosts without libvirt that nobody reaches.
        SetVm(new VmInfo { Manager = "libvirt", MemoryBytes = 100 * Gib, ResidentBytes = 100 * Gib });
        _hosts[0].Write("probe.json", new ProbeReply { Detail = "timed out" });
        SplitMigrationForecast forecast = await ForecastAsync(MigrationMode.Hybrid, 50 * Gib);
        Assert.False(forecast.CanMigrate);
        SplitMigrationCheck[] failed = [.. forecast.Checks.Where(c => !c.Passed)];
        Assert.Equal(["libvirt", "reachable", "reachable", "room", "sub-room"], failed.Select(c => c.Name).Order());
        Assert.All(failed, check => Assert.NotEmpty(check.Remedy));
        Assert.Contains("libvirt is missing", failed.Single(c => c.Name == "libvirt").Detail, StringComparison.Ordinal);
        Assert.All(failed.Where(c => c.Name == "reachable"), check => Assert.Contains("timed out", check.Detail, StringComparison.Ordinal));
    }

    private Task<SplitMigrationForecast> ForecastAsync(MigrationMode mode, ulong mainBytes = Gib) => SplitMigrationForecast.MakeAsync(
        new SplitMigrationRequest
        {
            Source = _connections[0], VmName = "big", MainHost = _connections[1], SubHosts = [_connections[2]], MainMemoryBytes = _ => mainBytes, Mode = mode,
        },
        default);

    private void SetVm(VmInfo vm)
    {
        vm.Name = "big";
        vm.ProcessId = 4321;
        vm.MemoryBytes = vm.MemoryBytes > 0 ? vm.MemoryBytes : 4 * Gib;
        vm.CanSplit = true;
        vm.CommandLine.AddRange(["qemu-system-x86_64", "-m", "4096"]);
        var reply = new ListVmsReply();
        reply.Vms.Add(vm);
        _hosts[0].Write("vms.json", reply);
    }
}
