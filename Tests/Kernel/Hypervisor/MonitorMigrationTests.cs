using System.Globalization;
using System.Text.Json.Nodes;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Injection;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using Xunit;

namespace FCtrans.Kernel.Tests.Hypervisor;

/// <summary>What a switch-over asks of QEMU, with real ones on both sides: the translated command line, the monitor, device state without RAM.</summary>
public sealed class MonitorMigrationTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    [Theory]
    [InlineData("memory-backend-file,id=ram0,size=256M,mem-path={shm}ram0,share=on,prealloc=on")]
    [InlineData("""{"qom-type":"memory-backend-file","id":"ram0","size":268435456,"mem-path":"{shm}ram0","share":true}""")]
    public void A_VM_moves_to_the_translated_command_line_and_its_RAM_is_not_in_the_stream(string backend)
    {
        using var source = new TestQemu(
            "-machine", "q35,memory-backend=ram0", "-m", "256M", "-smp", "2", "-object", backend,
            "-chardev", "socket,id=console,path={dir}/console.sock,server=on,wait=off", "-serial", "chardev:console",
            "-pidfile", "{dir}/qemu.pid");
        using var monitor = source.Connect();
        monitor.Cont();
        monitor.WaitForStatus("running", s_patience);
        var process = QemuProcesses.TryOpen(source.Pid)!;
        Assert.Empty(process.Obstacles);

        string run = Directory.CreateDirectory(Path.Combine(source.DirectoryPath, "run")).FullName;
        var line = DestinationCommandLine.Translate(
            process.CommandLine, new DestinationPaths("/dev/shm", Path.GetFileName(source.ShmPrefix) + "destination-", run));

        // The same machine: the source's own paths are taken, so all go to the run directory.
        Assert.All(line.Sockets, s => Assert.Equal(run, Path.GetDirectoryName(s)));
        Assert.Equal(Path.Combine(run, "qemu.pid"), line.PidFile);
        int destinationId = DetachedProcess.Start(line.Arguments, Path.Combine(run, "log"));
        using var destinationProcess = PidFd.Open(destinationId);
        try
        {
            using var destination = QemuMonitor.Connect(line.MonitorPath, s_patience);
            Assert.Equal("inmigrate", destination.QueryStatus().State);
            Assert.Equal(source.Name, destination.QueryName());
            Assert.Equal(destinationId.ToString(CultureInfo.InvariantCulture), File.ReadAllText(line.PidFile!).Trim());
            using var sourceRam = GuestRamFactory.Open(process, monitor);
            using var destinationRam = GuestRamFactory.Open(QemuProcesses.TryOpen(destinationId)!, destination);
            Assert.Equal(sourceRam.TotalBytes, destinationRam.TotalBytes);
            Assert.Equal(line.RamFiles.Select(f => f.Path), destinationRam.Blocks.ToArray().Select(b => b.Path));
            Assert.Equal(0, SparseFile.AllocatedBytes(destinationRam.Blocks[0].File) >> 24);

            foreach (var side in (QemuMonitor[])[monitor, destination])
            {
                side.SetMigrationCapabilities(new Dictionary<string, bool> { ["x-ignore-shared"] = true, ["events"] = true });
            }

            monitor.SetMigrationCapabilities(new Dictionary<string, bool> { ["pause-before-switchover"] = true });
            monitor.SetMigrationParameters(new JsonObject { ["max-bandwidth"] = 10L << 30 });
            destination.MigrateIncoming($"unix:{run}/state");
            monitor.Migrate($"unix:{run}/state");
            var paused = monitor.WaitForMigration(s_patience, "pre-switchover");
            Assert.Equal("pre-switchover", paused.Status);
            Assert.InRange(paused.RamTotalBytes, 0, 64 << 20);
            Assert.False(monitor.QueryStatus().Running);
            CopyRam(sourceRam, destinationRam);
            monitor.MigrateContinue();
            Assert.Equal("completed", monitor.WaitForMigration(s_patience, "completed").Status);
            destination.WaitForStatus("paused", s_patience);
            destination.Cont();
            destination.WaitForStatus("running", s_patience);
            Assert.Equal(2, destination.QueryCpus().Count);

            // The chip set's settings, by which firmware had made RAM visible below 1 MiB, came along.
            using var sourceAtEnd = GuestRamFactory.Open(process, monitor);
            using var arrived = GuestRamFactory.Open(QemuProcesses.TryOpen(destinationId)!, destination);
            Assert.Equal(sourceAtEnd.Segments.ToArray(), arrived.Segments.ToArray());
            destination.Quit();
            Assert.True(destinationProcess.WaitExit(s_patience));
        }
        finally
        {
            destinationProcess.SendSignal(Ptrace.SigKill);
            destinationProcess.WaitExit(s_patience);
        }
    }

    [Fact]
    public void A_userfaultfd_of_a_real_QEMU_is_opened_adopted_and_closed()
    {
        string directory = Directory.CreateTempSubdirectory("fctrans-inject-").FullName;
        string ram = $"/dev/shm/fctrans-test-{Guid.NewGuid():N}";
        string socket = Path.Combine(directory, "qmp");
        int pid = DetachedProcess.Start(
            ["qemu-system-x86_64", "-machine", "q35,memory-backend=ram0", "-m", "64M", "-display", "none", "-nodefaults",
             "-object", $"memory-backend-file,id=ram0,size=64M,mem-path={ram},share=on", "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
             "-qmp", $"unix:{socket},server=on,wait=off"],
            Path.Combine(directory, "log"));
        using var process = PidFd.Open(pid);
        try
        {
            using var monitor = QemuMonitor.Connect(socket, s_patience);
            monitor.WaitForStatus("running", s_patience);
            using var blocks = GuestRamFactory.Open(QemuProcesses.TryOpen(pid)!, monitor);
            var block = blocks.Blocks[0];
            using (var uffd = UserfaultfdInjector.Open(pid))
            {
                uffd.Api(UffdFeatures.Paging);
                uffd.Register(block.MappedAt, (ulong)blocks.TotalBytes, UffdRegisterMode.Missing | UffdRegisterMode.Wp);
                Assert.Contains(QemuProcesses.TryOpen(pid)!.Obstacles, o => o.Code == VmObstacle.AlreadySplit);
            }

            using (var adopted = UserfaultfdInjector.Adopt(pid).Single())
            {
                Assert.True(adopted.ReadState().Initialised);
                adopted.Unregister(block.MappedAt, (ulong)blocks.TotalBytes);
            }

            UserfaultfdInjector.CloseInTarget(pid);
            Assert.Empty(QemuProcesses.TryOpen(pid)!.Obstacles);
            Assert.True(monitor.QueryStatus().Running);
            monitor.Quit();
            Assert.True(process.WaitExit(s_patience));
        }
        finally
        {
            process.SendSignal(Ptrace.SigKill);
            process.WaitExit(s_patience);
            File.Delete(ram);
            Directory.Delete(directory, recursive: true);
        }
    }

    [Fact]
    public void The_monitor_tells_its_refusals_and_a_second_client_why_it_waits()
    {
        using var qemu = new TestQemu("-machine", "q35", "-m", "64M");
        using var monitor = qemu.Connect();
        Assert.Equal("CommandNotFound", Assert.Throws<MonitorException>(() => monitor.Execute("no-such-command")).ErrorClass);
        Assert.Equal("GenericError", Assert.Throws<MonitorException>(() => monitor.MigrateContinue()).ErrorClass);
        Assert.Equal("prelaunch", monitor.QueryStatus().State);
        Assert.Equal("none", monitor.QueryMigrate().Status);
        var busy = Assert.Throws<MonitorException>(() => QemuMonitor.Connect(qemu.MonitorPath, TimeSpan.FromMilliseconds(200)));
        Assert.Equal(MonitorException.Timeout, busy.ErrorClass);
        Assert.Contains("another client", busy.Message);
        var absent = Assert.Throws<MonitorException>(() => QemuMonitor.Connect(qemu.MonitorPath + "x", TimeSpan.Zero));
        Assert.Equal(MonitorException.Unreachable, absent.ErrorClass);
        monitor.Quit();
        var gone = Assert.Throws<MonitorException>(() => monitor.QueryStatus());
        Assert.Equal(MonitorException.Closed, gone.ErrorClass);
    }

    private static unsafe void CopyRam(GuestRam from, GuestRam to)
    {
        using var buffer = MappedMemory.Anonymous(1 << 20);
        var source = from.Blocks[0].File;
        for (long data = 0; (data = SparseFile.NextData(source, data)) >= 0;)
        {
            long end = SparseFile.NextHole(source, data);
            for (; data < end; data += (long)buffer.Bytes)
            {
                nuint bytes = (nuint)Math.Min((long)buffer.Bytes, end - data);
                Assert.Equal((nint)bytes, SparseFile.Read(source, buffer.Address, bytes, data));
                Assert.Equal((nint)bytes, SparseFile.Write(to.Blocks[0].File, buffer.Address, bytes, data));
            }

            data = end;
        }
    }
}
