using FCtrans.Agent.Hypervisor;
using Xunit;

namespace FCtrans.Unit.Tests.Hypervisor;

public sealed class QemuCapabilityTests
{
    [Theory]
    [InlineData("7.2.0", true)]
    [InlineData("7.2.22", true)]
    [InlineData("10.0.2", true)]
    [InlineData("7.1.0", false)]
    [InlineData("5.2.0", false)]
    public void A_QEMU_before_7_2_is_too_old(string version, bool available)
    {
        HostCapability qemu = HostCapabilities.Qemu("/usr/bin/qemu-system-x86_64", version);
        Assert.Equal(available, qemu.Available);
        Assert.Contains(version, qemu.Detail);
        Assert.Equal(available ? "" : "Install QEMU 7.2 or later. A sub-host needs none.", qemu.Remedy);
    }

    [Fact]
    public void One_that_can_not_be_asked_is_not_refused()
        => Assert.True(HostCapabilities.Qemu("/usr/bin/qemu-system-x86_64", "").Available);
}
