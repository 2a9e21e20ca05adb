using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Migration;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Kernel.Tests.Hypervisor;

/// <summary>QEMU starts a processor without what its host lacks, with no more than a warning. TCG lacks enough to show it.</summary>
public sealed class ProcessorFeaturesTests
{
    [Theory]
    [InlineData("installed")]
    [InlineData("10.0")]
    public void What_QEMU_leaves_out_here_and_not_at_the_source_is_refused(string qemu)
    {
        using var source = new TestQemu(TestQemu.Program(qemu), ["-machine", "q35", "-cpu", "qemu64"]);
        using var sourceMonitor = source.Connect();
        var spec = new WorkerSpec { ProcessorKnown = true };
        spec.FilteredProcessorFeatures.AddRange(ProcessorFeatures.Filtered(sourceMonitor));
        ProcessorFeatures.Require(spec, sourceMonitor);

        using var destination = new TestQemu(TestQemu.Program(qemu), ["-machine", "q35", "-cpu", "qemu64,+avx512f"]);
        using var monitor = destination.Connect();
        const string avx512f = "CPUID.07H.00H:EBX [bit 16]";
        Assert.Contains(avx512f, ProcessorFeatures.Filtered(monitor));
        var e = Assert.Throws<MigrationException>(() => ProcessorFeatures.Require(spec, monitor));
        Assert.Contains(avx512f, e.Message, StringComparison.Ordinal);

        // At a source that has it no more than the destination, nothing is lost.
        spec.FilteredProcessorFeatures.AddRange(ProcessorFeatures.Filtered(monitor));
        ProcessorFeatures.Require(spec, monitor);
        ProcessorFeatures.Require(new WorkerSpec(), monitor);
    }

    [Fact]
    public void QEMUs_own_reasons_against_a_migration_are_told()
    {
        using var movable = new TestQemu("-machine", "q35");
        using (var monitor = movable.Connect())
        {
            Assert.Empty(monitor.QueryMigrationBlockers());
        }

        // It keeps what the guest writes in a file that only this QEMU knows.
        using var stuck = new TestQemu("-machine", "q35", "-drive", "if=none,id=d0,driver=vvfat,dir={dir},rw=on", "-device", "virtio-blk-pci,drive=d0");
        using var stuckMonitor = stuck.Connect();
        Assert.NotEmpty(stuckMonitor.QueryMigrationBlockers());
    }
}
