using FCtrans.Agent.Hypervisor;
using Xunit;

namespace FCtrans.Unit.Tests.Hypervisor;

/// <summary>The samples are what QEMU 7.2 printed, before firmware ran.</summary>
public sealed class MemoryTreeTests
{
    private const ulong GiB = 1UL << 30;

    [Fact]
    public void Q35_has_2_GiB_below_the_hole_and_the_rest_above_4_GiB()
        => Assert.Equal(
            [new(0, 0xc0000, "ram0", 0), new(0x100000, (2 * GiB) - 0x100000, "ram0", 0x100000), new(4 * GiB, 2 * GiB, "ram0", 2 * GiB)],
            Ram("q35-4g", "ram0"));

    [Fact]
    public void I440fx_under_KVM_has_3_GiB_below()
        => Assert.Equal(
            [new(0, 0xc0000, "ram0", 0), new(0x100000, (3 * GiB) - 0x100000, "ram0", 0x100000), new(4 * GiB, GiB, "ram0", 3 * GiB)],
            Ram("i440fx-kvm-4g", "ram0"));

    [Fact]
    public void Microvm_has_3_GiB_below_and_no_video_hole()
        => Assert.Equal(
            [new(0, 0xf0000, "ram0", 0), new(0x100000, (3 * GiB) - 0x100000, "ram0", 0x100000), new(4 * GiB, GiB, "ram0", 3 * GiB)],
            Ram("microvm-4g", "ram0"));

    [Fact]
    public void A_NUMA_node_can_be_cut_by_the_hole()
    {
        Assert.Equal([new(0, 0xc0000, "n0", 0), new(0x100000, GiB - 0x100000, "n0", 0x100000)], Ram("q35-numa", "n0"));
        Assert.Equal([new(GiB, GiB, "n1", 0), new(4 * GiB, 2 * GiB, "n1", GiB)], Ram("q35-numa", "n1"));
    }

    [Fact]
    public void A_DIMM_follows()
        => Assert.Equal([new(4 * GiB, 2 * GiB, "d0", 0)], Ram("q35-dimm", "d0"));

    [Fact]
    public void ROM_is_told_by_its_own_name()
        => Assert.Contains(MemoryTree.ParseFlatView(Sample("q35-4g")), r => r.Region == "pc.bios" && r.Start == 0xfffc0000);

    [Fact]
    public void RAM_that_is_read_only_for_now_still_belongs_to_its_block()
    {
        var ranges = MemoryTree.ParseFlatView(
            """
            FlatView #0
             AS "memory", root: system
             Root memory region: system
              0000000000000000-00000000000bffff (prio 0, ram): ram 0 KVM
              00000000000c0000-00000000000fffff (prio 1, rom): ram 0 @00000000000c0000 KVM
              00000000febc0000-00000000febdffff (prio 1, i/o): e1000-mmio
            """);
        Assert.Equal([new(0, 0xc0000, "ram 0", 0), new(0xc0000, 0x40000, "ram 0", 0xc0000)], ranges);
    }

    [Theory]
    [InlineData("")]
    [InlineData("unknown command: 'info mtree -f'")]
    [InlineData("FlatView #0\n AS \"memory\", root: system\n Root memory region: (none)\n  No rendered FlatView\n")]
    [InlineData("FlatView #0\n AS \"I/O\", root: io\n  0000000000000000-000000000000ffff (prio 0, ram): ram0\n")]
    [InlineData("FlatView #0\n AS \"memory\", root: system\n  0000000000002000-0000000000001fff (prio 0, ram): ram0\n")]
    [InlineData("FlatView #0\n AS \"memory\", root: system\n  0000000000002000-0000000000000fff (prio 0, ram): ram0\n")]
    [InlineData("FlatView #0\n AS \"memory\", root: system\n  0000000000000000-ffffffffffffffff (prio 0, ram): ram0\n")]
    [InlineData("FlatView #0\n AS \"memory\", root: system\n  0000000000000000-0000000000001fff (prio 0, ram): a\n  0000000000001000-0000000000002fff (prio 0, ram): b\n")]
    [InlineData("FlatView #0\n AS \"memory\", root: system\n  0000000000000000-0000000000001fff (prio 0, ram): a @ffffffffffffff00\n")]
    public void What_makes_no_sense_is_refused(string text)
        => Assert.Throws<FormatException>(() => MemoryTree.ParseFlatView(text));

    private static List<MemoryTreeRange> Ram(string sample, string region)
        => [.. MemoryTree.ParseFlatView(Sample(sample)).Where(r => r.Region == region)];

    private static string Sample(string name)
        => File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "Hypervisor", "Samples", name + ".txt"));
}
