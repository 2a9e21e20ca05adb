using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Reclaim;
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

        // Without pause, while both processors take, write, verify and free.
        vm.Guest.Invoke("run rate=100 churn=100 threads=2");
        ReclaimFigures all = default;
        long end = Environment.TickCount64 + (long)Torture.TotalMilliseconds;
        while (Environment.TickCount64 < end || all.FreedPages < 1024)
        {
            Assert.True(Environment.TickCount64 < end + 60_000, $"too little was reclaimed: {all}");
            var figures = reclaim.Turn(s_all, settledOnly: false, CancellationToken.None);
            all.FreedPages += figures.FreedPages;
            all.TakenBack += figures.TakenBack;
            all.Uncertain += figures.Uncertain;
            all.Batches += figures.Batches;
        }

        output.WriteLine($"busy {all}");
        var stat = vm.Guest.WaitForFullPass(TimeSpan.FromSeconds(120));
        output.WriteLine($"{stat}");
        Assert.Equal(0, stat["errors"]);
        Assert.True(stat["churned"] > 0);
    }

    private static long Allocated(GuestRam ram) => SparseFile.AllocatedBytes(ram.Blocks[0].File);
}
