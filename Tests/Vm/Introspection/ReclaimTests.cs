using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Reclaim;
using FCtrans.Agent.Tracking;
using FCtrans.Lab;
using Xunit;
using Xunit.Abstractions;

namespace FCtrans.Vm.Tests.Introspection;

/// <summary>Free memory of a running guest is given back, and the guest never notices but for its speed.</summary>
public sealed class ReclaimTests(ITestOutputHelper output)
{
    private static readonly ReclaimLimits s_all = new();

    /// <summary>How long the guest is tortured; minutes when FCTRANS_TORTURE_SECONDS says so.</summary>
    private static TimeSpan Torture => TimeSpan.FromSeconds(
        int.TryParse(Environment.GetEnvironmentVariable("FCTRANS_TORTURE_SECONDS"), out int seconds) ? seconds : 6);

    [Fact]
    public void A_guest_that_takes_and_frees_memory_meanwhile_sees_no_wrong_byte()
    {
        using var vm = new GuestUnderTest("6.1", 1024);
        vm.Guest.Invoke("fill 768", TimeSpan.FromSeconds(120));
        vm.Guest.Invoke("free 512");
        using var ram = GuestRamFactory.Open(vm.Process, vm.Monitor);
        using var pages = UnusedPages.Open(ram, mayMap: true, () => GuestProcessor.Ask(vm.Monitor));
        using var check = new ProcessorCheck(() => GuestProcessor.Ask(vm.Monitor));
        using var target = HostReclaimTarget.Attach(ram, vm.Process.Pid);
        using var reclaim = new VmReclaim(ram, pages, target, check);

        // Quiet: all that was freed comes back to the host.
        long before = Allocated(ram);
        var wouldFree = reclaim.Turn(s_all with { WhatIf = true }, settledOnly: false, CancellationToken.None);
        Assert.Equal(before, Allocated(ram));
        Assert.True(wouldFree.FoundPages > 480 << 8, $"{wouldFree}");
        long freed = 0;
        for (int turn = 0; turn < 20 && freed < 450 << 8; turn++)
        {
            var figures = reclaim.Turn(s_all, settledOnly: false, CancellationToken.None);
            output.WriteLine($"quiet {figures}");
            freed += figures.FreedPages;
        }

        Assert.True(before - Allocated(ram) > 440L << 20, $"{(before - Allocated(ram)) >> 20} MiB came back");
        Assert.Equal(0, vm.Guest.Invoke("fresh 384", TimeSpan.FromSeconds(120))["errors"]);

        // From here on what changes is watched, as in a reclaim that goes on.
        pages.Watch = target.OpenWriteWatch();

        // Without pause, while both processors take, write, verify and free as fast as they can.
        vm.Guest.Invoke("run rate=1000 churn=1000 threads=2");
        ReclaimFigures all = default;
        int turns = 0;
        long end = Environment.TickCount64 + (long)Torture.TotalMilliseconds;
        while (Environment.TickCount64 < end || all.FreedPages < 1024)
        {
            Assert.True(Environment.TickCount64 < end + 60_000, $"too little was reclaimed: {all}");
            var figures = reclaim.Turn(s_all, settledOnly: turns % 3 != 0, CancellationToken.None);
            all.FreedPages += figures.FreedPages;
            all.TakenBack += figures.TakenBack;
            all.Uncertain += figures.Uncertain;
            all.Batches += figures.Batches;
            turns++;
        }

        output.WriteLine($"busy, {turns} turns {all}");
        var stat = vm.Guest.WaitForFullPass(TimeSpan.FromSeconds(120));
        output.WriteLine($"{stat}");
        Assert.Equal(0, stat["errors"]);
        Assert.True(stat["churned"] > 0);

        // A guest that stands still: what the watch has led to is what a look at everything comes to.
        vm.Monitor.Execute("stop");
        using var watched = new PageBitmap(ram.PageCount);
        using var full = new PageBitmap(ram.PageCount);
        using var fresh = UnusedPages.Open(ram, mayMap: true, () => GuestProcessor.Ask(vm.Monitor));
        Assert.Equal(UnusedFigures.Buddy, pages.Refresh(watched).Method);
        Assert.Equal(UnusedFigures.Buddy, fresh.Refresh(full).Method);
        Assert.Equal(full.Count(), watched.Count());
        full.AndNot(watched);
        Assert.Equal(0, full.Count());
        vm.Monitor.Execute("cont");
    }

    [Fact]
    public void A_guest_under_KVM_goes_on_while_its_memory_is_frozen_held_and_let_go()
    {
        // A program without a kernel: nothing of it can be told free, so reclaim itself leaves it alone; what it is made of is tried.
        using var lab = new FCtrans.Lab.Lab();
        var host = lab.AddHost("source", 512L << 20);
        var guest = host.StartGuest(new() { Name = "bare", Bare = true, MemoryBytes = 64L << 20 });
        guest.Invoke("fill 8");
        using var monitor = QemuMonitor.Connect(host.PathOf(guest.MonitorPath), TimeSpan.FromSeconds(10));
        var process = Directory.EnumerateDirectories("/proc").Select(d => Path.GetFileName(d))
            .Where(name => int.TryParse(name, out int pid) && ProcessFiles.CommandLine(pid).Contains(guest.Uuid.ToString()))
            .Select(name => QemuProcesses.OpenAnywhere(int.Parse(name, System.Globalization.CultureInfo.InvariantCulture)))
            .First(found => found is not null)!;
        using var ram = GuestRamFactory.Open(process, monitor);
        using var pages = UnusedPages.Open(ram, mayMap: true, () => GuestProcessor.Ask(monitor));
        using var check = new ProcessorCheck(() => GuestProcessor.Ask(monitor));
        using var target = HostReclaimTarget.Attach(ram, process.Pid);
        using var reclaim = new VmReclaim(ram, pages, target, check);
        using var neverTouched = new NeverTouchedSet(ram);
        neverTouched.Prepare();
        target.NeverTouched = neverTouched;
        // What it holds lies from 16 MiB up; what it counts its work with below 4 MiB; nothing in the last MiBs.
        const long First = 4096;
        const long Held = 2048;
        var idle = new PageRange(13_000, 1_000);
        guest.Invoke("run rewrite=2");
        long rewritten = guest.Invoke("stat")["rewritten"];
        var random = new Random(7);
        long end = Environment.TickCount64 + 3000;
        long rounds = 0;
        while (Environment.TickCount64 < end || guest.Invoke("stat")["rewritten"] < rewritten + (2 * Held))
        {
            Assert.True(Environment.TickCount64 < end + 60_000, "the guest does not go on");
            for (int i = 0; i < 50; i++, rounds++)
            {
                var held = new PageRange(First + random.Next((int)Held - 64), 64);
                long frozen = random.Next(512, 1024);
                Assert.True(target.Hold(held) && target.Freeze(frozen));
                target.LetGo(held);
                target.Thaw(frozen);
                Assert.True(target.Hold(idle));
                target.Drop(idle);
            }
        }

        var turn = reclaim.Turn(s_all, settledOnly: false, CancellationToken.None);
        Assert.Equal((0, 0), (turn.FoundPages, turn.FreedPages));
        Assert.Equal(UnusedFigures.NeverTouchedOnly, reclaim.Seen!.Method);
        var stat = guest.WaitForFullPass(TimeSpan.FromSeconds(120));
        output.WriteLine($"{rounds} rounds, {stat}");
        Assert.Equal(0, stat["errors"]);
    }

    private static long Allocated(GuestRam ram) => SparseFile.AllocatedBytes(ram.Blocks[0].File);
}
