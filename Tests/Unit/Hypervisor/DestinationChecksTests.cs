using System.Net;
using System.Net.Sockets;
using FCtrans.Agent.Hypervisor;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Hypervisor;

public sealed class DestinationChecksTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("fctrans-checks-").FullName;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Fact]
    public void Files_are_found_in_every_way_to_name_them()
    {
        var line = QemuCommandLine.Parse(
        [
            "qemu-system-x86_64", "/images/plain.img", "-hda", "/images/a.img", "-cdrom", "/images/b.iso", "-kernel", "/boot/k",
            "-drive", "file=/images/c.qcow2,if=virtio", "-drive", "file=/images/d.iso,media=cdrom", "-drive", "file=/images/e.img,readonly=on",
            "-blockdev", "driver=file,filename=/images/f.img,node-name=f", "-blockdev", "{\"driver\":\"qcow2\",\"read-only\":true,\"file\":{\"driver\":\"file\",\"filename\":\"/images/g.qcow2\"}}",
        ]);
        Assert.Equal(
            [
                ("/images/plain.img", true), ("/images/a.img", true), ("/images/b.iso", false), ("/boot/k", false), ("/images/c.qcow2", true),
                ("/images/d.iso", false), ("/images/e.img", false), ("/images/f.img", true), ("/images/g.qcow2", false),
            ],
            DestinationChecks.FilesOf(line));
    }

    [Fact]
    public void Ports_are_those_that_QEMU_listens_on()
    {
        var line = QemuCommandLine.Parse(
        [
            "qemu", "-vnc", "127.0.0.1:7,password=on", "-vnc", "unix:/run/v", "-vnc", "none", "-vnc", ":1,to=20", "-spice", "port=6000,tls-port=6001",
            "-netdev", "user,id=n,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp::5353-:53",
        ]);
        Assert.Equal([5907, 6000, 6001, 2222], DestinationChecks.PortsOf(line));
    }

    [Fact]
    public void What_this_host_lacks_is_said_with_its_remedy()
    {
        string disk = Path.Combine(_directory, "disk.img");
        File.WriteAllText(disk, "disk");
        using var taken = new TcpListener(IPAddress.Loopback, 0);
        taken.Start();
        int port = ((IPEndPoint)taken.LocalEndpoint).Port;
        var request = new CheckDestinationRequest();
        request.CommandLine.AddRange(
            ["/no/such/qemu", "-hda", disk, "-hdb", "/no/such/disk", "-drive", "file=nbd:unix:/run/x", "-hdc", "relative.img", "-netdev", $"user,id=n,hostfwd=tcp::{port}-:22"]);
        var checks = DestinationChecks.Run(request).ToDictionary(c => c.Name);
        Assert.All(checks.Values, c => Assert.Equal("failed", c.Result));
        Assert.All(checks.Values, c => Assert.NotEmpty(c.Remedy));
        Assert.Contains("/no/such/qemu", checks["qemu-machine"].Detail, StringComparison.Ordinal);
        Assert.Contains("/no/such/disk", checks["disks"].Detail, StringComparison.Ordinal);
        Assert.Contains("relative.img", checks["disks"].Detail, StringComparison.Ordinal);
        Assert.DoesNotContain(disk, checks["disks"].Detail, StringComparison.Ordinal);
        Assert.DoesNotContain("nbd", checks["disks"].Detail, StringComparison.Ordinal);
        Assert.Contains($"{port}", checks["ports"].Detail, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("host", false)]
    [InlineData("host,-vmx", false)]
    [InlineData("Skylake-Server", null)]
    public void A_processor_that_can_less_is_refused_where_the_guest_was_given_the_hosts(string model, bool? passes)
    {
        var line = QemuCommandLine.Parse(["qemu", "-cpu", model]);
        var check = DestinationChecks.Processor(line, ["sse", "avx512f"], ["sse"]);
        Assert.Equal(passes, check is null ? null : check.Result == "passed");
        Assert.True(check is null || check.Detail.Contains("avx512f", StringComparison.Ordinal));
        Assert.NotEqual("failed", DestinationChecks.Processor(line, ["sse"], ["sse", "avx2"])?.Result);
    }
}
