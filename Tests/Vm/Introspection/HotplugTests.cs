using System.Globalization;
using System.Text.Json.Nodes;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Reclaim;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Vm.Tests.Introspection;

/// <summary>Memory that is plugged into a running guest, whose kernel is Debian's for all machines.</summary>
public sealed class HotplugTests
{
    private const long Before = 384L << 20;
    private const long Plugged = 128L << 20;

    [Fact]
    public void A_DIMM_is_noticed_and_what_the_guest_leaves_free_of_it_is_found()
    {
        using var vm = new GuestUnderTest("6.12-generic", Before >> 20, "memhp_default_state=online", "-m", "384M,slots=2,maxmem=4G");
        string monitorPath = vm.Host.PathOf(vm.Guest.MonitorPath);
        // The monitor has one client at a time, and the memory under test connects to it by itself.
        vm.Monitor.Dispose();
        using var memory = new HostVmMemory(vm.Process with { MonitorPath = monitorPath }, tracked: false);
        using var set = memory.NewSet();
        var figures = memory.Look(set, null);
        Assert.Equal(UnusedFigures.Buddy, figures.Method);
        Assert.Equal(Before >> 12, figures.Total);
        Assert.Equal(vm.Shell("cat /proc/sys/kernel/osrelease").Trim(), figures.GuestKernel);
        long total = MemTotalPages(vm);

        using (var monitor = QemuMonitor.Connect(monitorPath, TimeSpan.FromSeconds(10)))
        {
            monitor.Execute("object-add", new JsonObject { ["qom-type"] = "memory-backend-memfd", ["id"] = "late", ["size"] = Plugged, ["share"] = true });
            monitor.Execute("device_add", new JsonObject { ["driver"] = "pc-dimm", ["id"] = "dimm", ["memdev"] = "late" });
        }

        // At once there is more memory; how much of it the guest's kernel has by now, nobody knows.
        var sink = new Changes();
        figures = memory.Look(set, sink);
        Assert.Equal((Before + Plugged) >> 12, figures.Total);
        Assert.True(figures.NeverTouched >= (Plugged >> 12) / 2, $"{figures}");
        Assert.Contains(sink.Found, change => change.Pages.First >= Before >> 12 && change.Use == MemoryUse.NeverTouched);
        Assert.True(
            SpinWait.SpinUntil(() => MemTotalPages(vm) >= total + (Plugged >> 12) - 4096, TimeSpan.FromSeconds(60)), "The guest does not take its new memory.");

        // The guest fills all that it has, and gives most of it back: some of that is on the DIMM.
        vm.Guest.Invoke("fill 330", TimeSpan.FromSeconds(120));
        figures = memory.Look(set, null);
        Assert.Equal(UnusedFigures.Buddy, figures.Method);
        Assert.True(figures.Used > 330 << 8, $"{figures}");
        vm.Guest.Invoke("free 290", TimeSpan.FromSeconds(60));
        figures = memory.Look(set, null);
        Assert.True(figures.Free > 230 << 8, $"{figures}");
        Assert.True(set.Free.CountIn(new(Before >> 12, Plugged >> 12)) > 0, $"{figures}");

        // All of it can be given back, and the guest finds what it holds as it left it.
        long freed = 0;
        for (int turn = 0; turn < 20 && freed < 230 << 8; turn++)
        {
            freed += memory.Turn(new ReclaimLimits(), settledOnly: false, CancellationToken.None).Figures.FreedPages;
        }

        Assert.True(freed >= 230 << 8, $"{freed}");
        Assert.Equal(0, vm.Guest.Invoke("fresh 120", TimeSpan.FromSeconds(120))["errors"]);
        Assert.Equal(0, vm.Guest.Invoke("verify", TimeSpan.FromSeconds(60))["errors"]);
    }

    private static long MemTotalPages(GuestUnderTest vm)
        => long.Parse(vm.Shell("grep ^MemTotal: /proc/meminfo").Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) / 4;

    private sealed class Changes : IMemoryUseSink
    {
        public List<(PageRange Pages, MemoryUse Use)> Found { get; } = [];

        public void Changed(PageRange pages, MemoryUse use) => Found.Add((pages, use));
    }
}
