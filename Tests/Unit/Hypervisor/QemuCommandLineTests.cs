using FCtrans.Agent.Hypervisor;
using Xunit;

namespace FCtrans.Unit.Tests.Hypervisor;

public sealed class QemuCommandLineTests
{
    /// <summary>As libvirt 9 writes it, with a monitor of the user's own at the end.</summary>
    internal static readonly string[] Libvirt =
    [
        "/usr/bin/qemu-system-x86_64", "-name", "guest=big vm,debug-threads=on", "-S",
        "-object", """{"qom-type":"secret","id":"masterKey0","format":"raw","file":"/var/lib/libvirt/qemu/domain-1-big/master-key.aes"}""",
        "-machine", "pc-q35-7.2,usb=off,dump-guest-core=off,memory-backend=pc.ram", "-accel", "kvm", "-cpu", "host,migratable=on",
        "-m", "352256", "-object", """{"qom-type":"memory-backend-file","id":"pc.ram","mem-path":"/dev/shm/libvirt/qemu/1-big/pc.ram","share":true,"x-use-canonical-path-for-ramblock-id":false,"prealloc":true,"size":369367187456,"host-nodes":[1],"policy":"bind"}""",
        "-overcommit", "mem-lock=off", "-smp", "8,sockets=2,cores=2,threads=2", "-uuid", "6a8dd0e1-5f0c-4f4b-9d6b-0d5f0c7f3b11",
        "-display", "none", "-no-user-config", "-nodefaults",
        "-chardev", "socket,id=charmonitor,path=/run/big/libvirt.sock,server=on,wait=off", "-mon", "chardev=charmonitor,id=monitor,mode=control",
        "-rtc", "base=utc,driftfix=slew", "-global", "kvm-pit.lost_tick_policy=delay", "-no-hpet", "-no-shutdown", "-boot", "strict=on",
        "-device", """{"driver":"pcie-root-port","port":16,"chassis":1,"id":"pci.1","bus":"pcie.0","multifunction":true,"addr":"0x2"}""",
        "-blockdev", """{"driver":"file","filename":"/srv/nfs/big,1.qcow2","node-name":"libvirt-1-storage","auto-read-only":true,"discard":"unmap"}""",
        "-device", """{"driver":"virtio-blk-pci","bus":"pci.1","addr":"0x0","drive":"libvirt-1-storage","id":"virtio-disk0","bootindex":1}""",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", "-msg", "timestamp=on",
        "-qmp", "unix:/run/big/fctrans,,1.sock,server=on,wait=off",
    ];

    [Fact]
    public void A_long_command_line_of_libvirt_is_understood()
    {
        var line = QemuCommandLine.Parse(Libvirt);
        Assert.Equal("big vm", line.Name);
        Assert.Equal("6a8dd0e1-5f0c-4f4b-9d6b-0d5f0c7f3b11", line.Uuid);
        Assert.Equal("pc-q35-7.2", line.MachineType);
        Assert.Equal(8, line.VCpus);
        Assert.True(line.AsksForKvm);
        Assert.Equal(
            new MemoryBackend("pc.ram", "memory-backend-file", 369367187456, "/dev/shm/libvirt/qemu/1-big/pc.ram", Shared: true, HugePages: false),
            Assert.Single(line.Backends));
        Assert.Equal("/run/big/fctrans,1.sock", line.MonitorPath);
        Assert.Empty(QemuObstacles.Find(line, "7.2.22"));
    }

    [Fact]
    public void Libvirts_own_monitor_is_a_descriptor_and_of_no_use()
    {
        string[] arguments = [.. Libvirt[..^2].Select(a => a.Replace("path=/run/big/libvirt.sock", "fd=35"))];
        Assert.Null(QemuCommandLine.Parse(arguments).MonitorPath);
        var obstacle = Assert.Single(QemuObstacles.Find(QemuCommandLine.Parse(arguments), "7.2.22"));
        Assert.Equal(VmObstacle.NoMonitor, obstacle.Code);
        Assert.Contains("-qmp", obstacle.Remedy);
    }

    [Theory]
    [InlineData("-qmp unix:/m,server,nowait", "/m")]
    [InlineData("-qmp unix:/m,server=on", "/m")]
    [InlineData("--qmp-pretty unix:/m,server=on", "/m")]
    [InlineData("-qmp unix:/m", null)]
    [InlineData("-qmp unix:/m,server=off", null)]
    [InlineData("-qmp tcp:127.0.0.1:4444,server=on", null)]
    [InlineData("-monitor unix:/m,server=on", null)]
    [InlineData("-chardev socket,id=c,path=/m,server=on -mon c,mode=control", "/m")]
    [InlineData("-chardev socket,id=c,path=/m,server=on -mon chardev=c,mode=readline", null)]
    [InlineData("-chardev socket,id=c,path=/m -mon chardev=c,mode=control", null)]
    public void The_monitor_is_one_that_listens_and_speaks_QMP(string options, string? expected)
        => Assert.Equal(expected, QemuCommandLine.Parse(["qemu-system-x86_64", .. options.Split(' ')]).MonitorPath);

    [Theory]
    [InlineData("-smp 4", 4)]
    [InlineData("-smp cpus=2,maxcpus=8", 2)]
    [InlineData("-smp sockets=2,cores=3", 6)]
    [InlineData("-smp 999999999", 1)]
    [InlineData("-m 1G", 1)]
    public void Processors(string options, int expected)
        => Assert.Equal(expected, QemuCommandLine.Parse(["qemu", .. options.Split(' ')]).VCpus);

    [Fact]
    public void Memory_without_a_backend_is_QEMUs_own()
    {
        var backend = Assert.Single(QemuCommandLine.Parse(["qemu", "-m", "2G", "-M", "microvm"]).Backends);
        Assert.Equal(("microvm.ram", 2L << 30, false), (backend.Id, backend.Bytes, backend.Shared));
        Assert.Equal(128L << 20, Assert.Single(QemuCommandLine.Parse(["qemu"]).Backends).Bytes);
        Assert.Empty(QemuCommandLine.Parse(["qemu", "-machine", "none"]).Backends);
    }

    [Fact]
    public void Blocks_come_in_the_order_of_guest_memory_and_unused_backends_do_not_count()
    {
        var line = QemuCommandLine.Parse(
        [
            "qemu", "-object", "memory-backend-file,id=spare,size=1G,mem-path=/dev/shm/s,share=on",
            "-object", "memory-backend-file,id=d,size=1G,mem-path=/dev/shm/d,share=on", "-device", "pc-dimm,memdev=d,id=dimm",
            "-object", "memory-backend-memfd,id=n1,size=2G", "-object", "memory-backend-ram,id=n0,size=3G",
            "-numa", "node,nodeid=1,memdev=n1", "-numa", "node,nodeid=0,memdev=n0", "-numa", "cpu,node-id=0,socket-id=0",
        ]);
        Assert.Equal(["n0", "n1", "d"], line.Backends.Select(b => b.Id));
        Assert.Equal([false, true, true], line.Backends.Select(b => b.Shared));
    }

    [Fact]
    public void Set_changes_an_object_given_before()
    {
        var line = QemuCommandLine.Parse(
            ["qemu", "-machine", "q35,memory-backend=r", "-object", "memory-backend-file,id=r,size=1G,mem-path=/a", "-set", "object.r.share=on"]);
        Assert.True(Assert.Single(line.Backends).Shared);
    }

    [Theory]
    [InlineData("-device vfio-pci,host=01:00.0", VmObstacle.UnsupportedDevice)]
    [InlineData("-device {\"driver\":\"vhost-user-fs-pci\",\"chardev\":\"c\"}", VmObstacle.UnsupportedDevice)]
    [InlineData("-device ivshmem-plain,memdev=x", VmObstacle.UnsupportedDevice)]
    [InlineData("-netdev vhost-user,id=n,chardev=c", VmObstacle.UnsupportedDevice)]
    [InlineData("-netdev {\"type\":\"vhost-vdpa\",\"id\":\"n\"}", VmObstacle.UnsupportedDevice)]
    [InlineData("-device scsi-block,drive=d", VmObstacle.UnsupportedDevice)]
    [InlineData("-device virtio-gpu-pci,blob=true", VmObstacle.UnsupportedDevice)]
    [InlineData("-drive file=/d,cache=none", VmObstacle.DirectIo)]
    [InlineData("-drive file=/d,cache.direct=on", VmObstacle.DirectIo)]
    [InlineData("-blockdev {\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"/d\",\"cache\":{\"direct\":true}}}", VmObstacle.DirectIo)]
    [InlineData("-overcommit mem-lock=on", VmObstacle.LockedMemory)]
    [InlineData("-snapshot", VmObstacle.CommandLine)]
    [InlineData("-readconfig /etc/vm.cfg", VmObstacle.CommandLine)]
    [InlineData("-netdev tap,id=n,fd=30", VmObstacle.CommandLine)]
    public void What_keeps_a_VM_from_being_split(string options, string code)
    {
        var obstacle = Assert.Single(QemuObstacles.Find(QemuCommandLine.Parse([.. Plain, .. options.Split(' ')]), "7.2.22"));
        Assert.Equal(code, obstacle.Code);
        Assert.NotEmpty(obstacle.Remedy);
    }

    [Theory]
    [InlineData("-device virtio-net-pci,netdev=n -netdev tap,id=n,ifname=tap0,vhost=on")]
    [InlineData("-drive file=/d,cache=writeback")]
    [InlineData("-device virtio-balloon-pci")]
    public void What_does_not(string options)
        => Assert.Empty(QemuObstacles.Find(QemuCommandLine.Parse([.. Plain, .. options.Split(' ')]), "7.2.22"));

    [Theory]
    [InlineData("memory-backend-file,id=r,size=1G,mem-path=/dev/shm/r", "7.2.0", VmObstacle.PrivateMemory)]
    [InlineData("memory-backend-ram,id=r,size=1G,share=on", "7.2.0", VmObstacle.PrivateMemory)]
    [InlineData("memory-backend-memfd,id=r,size=1G", "8.1.0", VmObstacle.PrivateMemory)]
    [InlineData("memory-backend-memfd,id=r,size=1G", "10.0.2", VmObstacle.PrivateMemory)]
    [InlineData("memory-backend-memfd,id=r,size=1G,hugetlb=on", "7.2.0", VmObstacle.HugePages)]
    [InlineData("memory-backend-file,id=r,size=1025,mem-path=/r,share=on", "7.2.0", VmObstacle.PrivateMemory)]
    public void Memory_that_can_not_be_split(string backend, string version, string code)
    {
        string[] arguments = ["qemu", "-machine", "q35,memory-backend=r", "-object", backend, "-qmp", "unix:/m,server=on"];
        Assert.Equal(code, Assert.Single(QemuObstacles.Find(QemuCommandLine.Parse(arguments), version)).Code);
    }

    [Fact]
    public void Any_arguments_at_all_are_read_without_failing()
    {
        var random = new Random(7);
        string[] words = ["-object", "-m", "-machine", "-numa", "-device", "-smp", "-set", "-chardev", "-mon", "-qmp", "{", "{}", "=", ",", ",,",
            "node,memdev=", "object.a.b=c", "id=", "memory-backend-file,id=a", "-", "--", "", "pc-dimm,memdev=a", "unix:", "-name", "99999999999G"];
        for (int i = 0; i < 20_000; i++)
        {
            string[] arguments = [.. Enumerable.Range(0, random.Next(12)).Select(_ => words[random.Next(words.Length)])];
            var line = QemuCommandLine.Parse(arguments);
            _ = QemuObstacles.Find(line, "7.2");
            _ = (line.Name, line.Uuid, line.MachineType, line.VCpus, line.MonitorPath, line.AsksForKvm);
        }
    }

    private static string[] Plain =>
    [
        "qemu-system-x86_64", "-machine", "q35,memory-backend=r", "-object", "memory-backend-file,id=r,size=1G,mem-path=/dev/shm/r,share=on",
        "-qmp", "unix:/m,server=on",
    ];
}
