using FCtrans.Agent.Hypervisor;
using Xunit;

namespace FCtrans.Kernel.Tests.Hypervisor;

public sealed class HostCapabilitiesTests
{
    [Fact]
    public void A_host_that_can_run_these_tests_has_all_it_needs()
    {
        var capabilities = HostCapabilities.Probe();
        Assert.Equal(
            ["userfaultfd", "userfaultfd-wp-async", "pagemap-scan", "ptrace", "pidfd-getfd", "ram-directory", "qemu", "libvirt"],
            capabilities.Select(c => c.Name));
        Assert.All(capabilities, c => Assert.NotEmpty(c.Detail));
        Assert.All(capabilities, c => Assert.Equal(c.Available, c.Remedy.Length == 0));

        // A host without libvirt runs VMs all the same.
        Assert.All(capabilities.Where(c => c.Name != "libvirt"), c => Assert.True(c.Available, $"{c.Name}: {c.Detail} {c.Remedy}"));
        Assert.Matches("^[0-9]+[.][0-9]+[.][0-9]+$", HostCapabilities.QemuVersion());
    }
}
