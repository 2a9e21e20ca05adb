using System.Text.Json.Nodes;
using FCtrans.Agent.Hypervisor;
using Xunit;

namespace FCtrans.Unit.Tests.Hypervisor;

public sealed class DestinationCommandLineTests
{
    private static readonly DestinationPaths s_free = new("/dev/shm", "fctrans-1-", "/run/fctrans/1", _ => false);

    [Fact]
    public void A_libvirt_like_line_keeps_its_devices_and_gets_a_RAM_file_of_the_destination()
    {
        string[] source = QemuCommandLineTests.Libvirt;
        var line = DestinationCommandLine.Translate(source, s_free);
        Assert.Equal(["-S", "-incoming", "defer"], line.Arguments.TakeLast(3));
        Assert.Single(line.Arguments, a => a == "-S");
        Assert.Equal([new DestinationRamFile("pc.ram", "/dev/shm/fctrans-1-pc.ram", 369367187456)], line.RamFiles);
        Assert.Equal("/run/big/fctrans,1.sock", line.MonitorPath);
        Assert.Equal(["/run/big/libvirt.sock", "/run/big/fctrans,1.sock"], line.Sockets);
        Assert.Equal(["/dev/shm", "/run/big"], line.Directories);

        // All but the RAM is word for word the source's.
        string[] Rest(IEnumerable<string> arguments)
            => [.. arguments.Where(a => a is not ("-S" or "-incoming" or "defer") && !a.Contains("memory-backend-file", StringComparison.Ordinal))];
        Assert.Equal(Rest(source), Rest(line.Arguments));
        var ram = JsonNode.Parse(line.Arguments.Single(a => a.Contains("memory-backend-file", StringComparison.Ordinal)))!.AsObject();
        Assert.Equal("/dev/shm/fctrans-1-pc.ram", (string?)ram["mem-path"]);
        Assert.Equal(369367187456, (long?)ram["size"]);
        Assert.True((bool?)ram["share"]);
        Assert.False((bool?)ram["x-use-canonical-path-for-ramblock-id"]);
        Assert.All((string[])["prealloc", "host-nodes", "policy"], key => Assert.False(ram.ContainsKey(key)));
    }

    [Fact]
    public void Paths_that_are_taken_go_to_the_run_directory()
    {
        var taken = s_free with { IsTaken = path => path.StartsWith("/vm/", StringComparison.Ordinal) || path == "/run/fctrans/1/serial" };
        var line = DestinationCommandLine.Translate(
            Plain("-serial", "unix:/vm/serial,server=on,wait=off", "-pidfile", "/vm/pid", "-daemonize", "-chardev", "socket,id=x,path=/vm/a,,b,server=on",
                "-chardev", "socket,id=client,path=/vm/elsewhere", "-qmp", "unix:/vm/m,server=on,wait=off"), taken);
        Assert.Equal("/run/fctrans/1/m", line.MonitorPath);
        Assert.Equal("/run/fctrans/1/pid", line.PidFile);
        Assert.Contains("unix:/run/fctrans/1/1-serial,server=on,wait=off", line.Arguments);
        Assert.Contains("socket,id=x,path=/run/fctrans/1/a,,b,server=on", line.Arguments);
        Assert.Contains("socket,id=client,path=/vm/elsewhere", line.Arguments);
        Assert.DoesNotContain("-daemonize", line.Arguments);
    }

    [Fact]
    public void A_memfd_becomes_a_file_of_the_same_id()
    {
        var line = DestinationCommandLine.Translate(
        [
            "qemu", "-machine", "q35", "-object", "memory-backend-memfd,id=a b,size=1G,seal=on,prealloc=on", "-numa", "node,memdev=a b",
            "-set", "object.a b.size=2G", "-incoming", "tcp:0:1", "-loadvm", "old", "-qmp", "unix:/m,server=on",
        ], s_free);
        Assert.Contains("memory-backend-file,id=a b,size=2147483648,mem-path=/dev/shm/fctrans-1-a_b,share=on", line.Arguments);
        Assert.DoesNotContain("-set", line.Arguments);
        Assert.DoesNotContain("-loadvm", line.Arguments);
        Assert.Equal("defer", Assert.Single(line.Arguments.SkipWhile(a => a != "-incoming").Skip(1)));
    }

    [Fact]
    public void A_disk_image_without_an_option_stays_one()
        => Assert.Contains("/srv/disk.img", DestinationCommandLine.Translate(Plain("/srv/disk.img", "-qmp", "unix:/m,server=on"), s_free).Arguments);

    [Theory]
    [InlineData("-netdev", "tap,id=n,fd=30")]
    [InlineData("-chardev", "socket,id=c,fd=35,server=on")]
    [InlineData("-add-fd", "fd=3,set=1")]
    [InlineData("-readconfig", "/etc/vm.cfg")]
    public void What_belongs_to_the_source_host_is_refused(string option, string value)
    {
        var refused = Assert.Throws<CommandLineException>(
            () => DestinationCommandLine.Translate(Plain(option, value, "-qmp", "unix:/m,server=on"), s_free));
        Assert.Contains(option.TrimStart('-'), refused.Reason);
        Assert.NotEmpty(refused.Remedy);
    }

    [Fact]
    public void RAM_files_of_different_ids_never_share_a_path()
        => Assert.Throws<CommandLineException>(() => DestinationCommandLine.Translate(
        [
            "qemu", "-object", "memory-backend-memfd,id=a b,size=1G", "-object", "memory-backend-memfd,id=a_b,size=1G",
            "-numa", "node,memdev=a b", "-numa", "node,memdev=a_b", "-qmp", "unix:/m,server=on",
        ], s_free));

    [Fact]
    public void An_id_can_not_lead_out_of_the_RAM_directory()
    {
        var line = DestinationCommandLine.Translate(
        [
            "qemu", "-machine", "q35,memory-backend=../../etc/x", "-object", "memory-backend-memfd,id=../../etc/x,size=1G", "-qmp", "unix:/m,server=on",
        ], s_free);
        Assert.Equal("/dev/shm", Path.GetDirectoryName(Path.GetFullPath(Assert.Single(line.RamFiles).Path)));
    }

    private static string[] Plain(params string[] more) =>
    [
        "qemu-system-x86_64", "-machine", "q35,memory-backend=r", "-object", "memory-backend-file,id=r,size=1G,mem-path=/dev/shm/r,share=on", .. more,
    ];
}
