using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using Xunit;

namespace FCtrans.Kernel.Tests.Hypervisor;

/// <summary>Finding a real QEMU and its memory, on every machine type that splits guest memory in another way.</summary>
public sealed unsafe class GuestRamFactoryTests
{
    [Theory]
    [InlineData("installed", "q35", 4)]
    [InlineData("installed", "pc", 4)]
    [InlineData("installed", "microvm", 4)]
    [InlineData("installed", "q35", 1)]
    [InlineData("10.0", "q35", 4)]
    [InlineData("10.0", "pc", 4)]
    [InlineData("10.0", "microvm", 4)]
    public void Memory_is_found_where_QEMU_has_it(string version, string machine, int gibibytes)
    {
        using var qemu = new TestQemu(
            TestQemu.Program(version),
            [
                "-machine", $"{machine},memory-backend=ram0", "-m", $"{gibibytes}G", "-smp", "2",
                "-object", $"memory-backend-file,id=ram0,size={gibibytes}G,mem-path={{shm}}ram0,share=on",
            ]);
        using var monitor = qemu.Connect();
        var process = Assert.Single(QemuProcesses.Find(), p => p.Name == qemu.Name);
        Assert.Empty(process.Obstacles);
        Assert.Equal(qemu.Pid, process.Pid);
        Assert.Equal((long)gibibytes << 30, process.MemoryBytes);
        Assert.Equal(qemu.MonitorPath, process.MonitorPath);
        Assert.Equal("tcg", process.Accelerator);
        Assert.Equal(machine, process.MachineType);
        Assert.Equal(monitor.QemuVersion, process.QemuVersion);
        Assert.Equal(2, process.VCpus);

        using var ram = GuestRamFactory.Open(process, monitor);
        Assert.Equal((long)gibibytes << 30, ram.TotalBytes);
        AssertEveryEndOfSegmentsAgreesWithQemu(ram, monitor, (ulong)gibibytes << 30);

        using var blind = GuestRamFactory.Open(process, monitor: null);
        Assert.Equal(ram.Blocks[0].MappedAt, blind.Blocks[0].MappedAt);
        Assert.Equal(0, blind.Segments.Length);
    }

    [Theory]
    [InlineData("installed")]
    [InlineData("10.0")]
    public void NUMA_nodes_and_DIMMs_follow_one_another(string version)
    {
        using var qemu = new TestQemu(
            TestQemu.Program(version),
            [
                "-machine", "q35", "-m", "2G,slots=2,maxmem=8G", "-smp", "2",
                "-object", "memory-backend-file,id=n1,size=1G,mem-path={shm}n1,share=on",
                "-object", "memory-backend-memfd,id=n0,size=1G",
                "-numa", "node,nodeid=1,memdev=n1,cpus=1", "-numa", "node,nodeid=0,memdev=n0,cpus=0",
                "-object", """{"qom-type":"memory-backend-memfd","id":"d0","size":1073741824,"share":true}""",
                "-device", "pc-dimm,id=dimm0,memdev=d0",
            ]);
        using var monitor = qemu.Connect();
        var process = Assert.Single(QemuProcesses.Find(), p => p.Name == qemu.Name);
        Assert.Equal(["n0", "n1", "d0"], process.RamBlocks.Select(b => b.Id));

        using var ram = GuestRamFactory.Open(process, monitor);
        Assert.Equal(3L << 30, ram.TotalBytes);
        AssertEveryEndOfSegmentsAgreesWithQemu(ram, monitor, 3UL << 30);

        // Two memfds bear one name: without a monitor nobody can tell them apart, and a guess would corrupt a guest.
        Assert.Throws<GuestRamException>(() => GuestRamFactory.Open(process, monitor: null));
    }

    [Fact]
    public void The_opened_file_is_the_memory_that_the_guest_sees()
    {
        using var qemu = new TestQemu(
            "-machine", "q35,memory-backend=ram0", "-m", "4G",
            "-object", "memory-backend-memfd,id=ram0,size=4G,share=on");
        using var monitor = qemu.Connect();
        using var ram = GuestRamFactory.Open(QemuProcesses.TryOpen(qemu.Pid)!, monitor);
        Assert.True(ram.TryPageOf(new GuestPhysicalAddress(0x1_0000_3000), out long page));
        Assert.Equal(0x8000_3000 >> 12, page);
        ulong value = 0x1122334455667788;
        Assert.Equal(8, SparseFile.Write(ram.Blocks[0].File, &value, 8, page << 12));
        Assert.Contains("0x1122334455667788", monitor.HumanMonitor("xp /1gx 0x100003000"));
    }

    [Theory]
    [InlineData("installed")]
    [InlineData("10.0")]
    public void Memory_plugged_in_later_can_be_looked_at_but_not_moved(string version)
    {
        using var qemu = new TestQemu(
            TestQemu.Program(version),
            [
                "-machine", "q35", "-m", "1G,slots=3,maxmem=8G", "-object", "memory-backend-memfd,id=ram0,size=1G", "-machine", "memory-backend=ram0",
                "-object", "memory-backend-memfd,id=d0,size=512M", "-device", "pc-dimm,id=dimm0,memdev=d0",
            ]);
        using var monitor = qemu.Connect();
        monitor.HumanMonitor("object_add memory-backend-memfd,id=late,size=256M");
        monitor.HumanMonitor("device_add pc-dimm,id=d,memdev=late");
        monitor.HumanMonitor($"object_add memory-backend-file,id=later,size=128M,share=on,mem-path={qemu.ShmPrefix}later");
        monitor.HumanMonitor("device_add pc-dimm,id=e,memdev=later");
        var process = QemuProcesses.TryOpen(qemu.Pid)!;
        var refused = Assert.Throws<GuestRamException>(() => GuestRamFactory.Open(process, monitor));
        Assert.Contains("late, later", refused.Message);
        Assert.Contains("Unplug it", refused.Message);

        using var ram = GuestRamFactory.Open(process, monitor, withPlugged: true);
        Assert.Equal(["ram0", "d0", "late", "later"], ram.Blocks.ToArray().Select(b => b.Id));
        Assert.Equal((1024L + 512 + 256 + 128) << 20, ram.TotalBytes);
        AssertEveryEndOfSegmentsAgreesWithQemu(ram, monitor, (ulong)ram.TotalBytes);
        Assert.Equal(qemu.ShmPrefix + "later", ram.Blocks[3].Path);
    }

    [Fact]
    public void Private_memory_that_is_plugged_in_later_can_not_be_looked_at()
    {
        using var qemu = new TestQemu(
            "-machine", "q35,memory-backend=ram0", "-m", "1G,slots=2,maxmem=8G", "-object", "memory-backend-memfd,id=ram0,size=1G");
        using var monitor = qemu.Connect();
        monitor.HumanMonitor("object_add memory-backend-ram,id=late,size=256M");
        monitor.HumanMonitor("device_add pc-dimm,id=d,memdev=late");
        var refused = Assert.Throws<GuestRamException>(
            () => GuestRamFactory.Open(QemuProcesses.TryOpen(qemu.Pid)!, monitor, withPlugged: true));
        Assert.Contains("share=on", refused.Remedy);
    }

    [Fact]
    public void Private_memory_is_an_obstacle_with_a_remedy()
    {
        using var qemu = new TestQemu("-machine", "q35", "-m", "256M");
        using var monitor = qemu.Connect();
        var process = Assert.Single(QemuProcesses.Find(), p => p.Name == qemu.Name);
        var obstacle = Assert.Single(process.Obstacles);
        Assert.Equal(VmObstacle.PrivateMemory, obstacle.Code);
        Assert.Contains("share=on", obstacle.Remedy);
        Assert.Equal(256L << 20, process.MemoryBytes);
        Assert.Throws<GuestRamException>(() => GuestRamFactory.Open(process, monitor));
    }

    [Fact]
    public void A_file_outside_a_tmpfs_is_an_obstacle()
    {
        string directory = Directory.CreateDirectory(Path.Combine(AppContext.BaseDirectory, "ram-" + Guid.NewGuid().ToString("N"))).FullName;
        try
        {
            using var qemu = new TestQemu(
                "-machine", "q35,memory-backend=ram0", "-m", "64M",
                "-object", $"memory-backend-file,id=ram0,size=64M,mem-path={directory}/ram,share=on");
            using var monitor = qemu.Connect();
            var process = Assert.Single(QemuProcesses.Find(), p => p.Name == qemu.Name);
            Assert.Equal(VmObstacle.NotInTmpfs, Assert.Single(process.Obstacles).Code);
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    private static void AssertEveryEndOfSegmentsAgreesWithQemu(GuestRam ram, QemuMonitor monitor, ulong bytes)
    {
        // A little of RAM below 1 MiB may be hidden behind ROM; nothing else may be missing.
        ulong covered = 0;
        foreach (var segment in ram.Segments)
        {
            covered += segment.Bytes;
            foreach (ulong address in (ulong[])[segment.Start, segment.Start + segment.Bytes - PageIndex.PageSize])
            {
                Assert.True(ram.TryPageOf(new GuestPhysicalAddress(address), out long page));
                Assert.Contains($"is 0x{ram.AddressOf(page).Value:x}", monitor.HumanMonitor($"gpa2hva 0x{address:x}"));
            }
        }

        Assert.InRange(covered, bytes - (512 << 10), bytes);
    }
}
