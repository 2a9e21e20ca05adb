using FCtrans.Agent.Hypervisor;
using Xunit;

namespace FCtrans.Unit.Tests.Hypervisor;

public sealed class TmpfsHugePagesTests
{
    private const string Switch = "always within_size advise [never] deny force\n";

    [Theory]
    [InlineData("rw,inode64", false, "huge=never")]
    [InlineData("rw,huge=advise,inode64", false, "huge=advise")]
    [InlineData("rw,size=1024k,huge=always", true, "huge=always")]
    [InlineData("rw,huge=within_size,inode64", true, "huge=within_size")]
    public void The_mounts_own_option_decides(string options, bool given, string said)
    {
        var (found, detail, remedy) = TmpfsHugePages.Look(Switch, Mounts(options), "/dev/shm");
        Assert.Equal(given, found);
        Assert.Contains(said, detail);
        Assert.Contains("remount,huge=never /dev/shm", remedy);
    }

    [Fact]
    public void What_the_kernels_own_mount_does_says_nothing_of_it()
        => Assert.False(TmpfsHugePages.Look("[always] within_size advise never deny force", Mounts("rw"), "/dev/shm").Given);

    [Fact]
    public void Force_and_deny_reach_every_mount()
    {
        Assert.True(TmpfsHugePages.Look("always within_size advise never deny [force]", Mounts("rw"), "/dev/shm").Given);
        Assert.False(TmpfsHugePages.Look("always within_size advise never [deny] force", Mounts("rw,huge=always"), "/dev/shm").Given);
    }

    [Fact]
    public void Of_mounts_on_top_of_each_other_the_last_counts()
        => Assert.True(TmpfsHugePages.Look(Switch, Mounts("rw") + Mounts("rw,huge=always"), "/dev/shm").Given);

    [Fact]
    public void A_kernel_without_them_gives_none()
        => Assert.False(TmpfsHugePages.Look("", Mounts("rw,huge=always"), "/dev/shm").Given);

    /// <summary>Other mounts, with and without optional fields, around the one that is looked for.</summary>
    private static string Mounts(string options) => $"""
        24 1 0:22 / / rw,relatime shared:1 - ext4 /dev/root rw,huge=always
        25 24 0:23 / /dev/shm rw,nosuid,nodev shared:3 master:4 - tmpfs tmpfs {options}
        26 24 0:24 / /dev/shm/sub rw - tmpfs tmpfs rw,huge=within_size

        """;
}
