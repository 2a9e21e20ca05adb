using FCtrans.Agent.Hypervisor;
using Xunit;

namespace FCtrans.Unit.Tests.Hypervisor;

public sealed class ProcessFilesTests
{
    [Theory]
    [InlineData("7f4ad3ffe000-7f4b93ffe000 rw-s 00000000 00:1b 6                          /dev/shm/kh3-n1", "/dev/shm/kh3-n1", true)]
    [InlineData("7f4ad3ffe000-7f4b93ffe000 rw-s 00200000 00:01 6 /memfd:memory-backend-memfd (deleted)", "/memfd:memory-backend-memfd (deleted)", true)]
    [InlineData("7f4ad3ffe000-7f4b93ffe000 rw-p 00000000 00:00 0", "", false)]
    [InlineData("7f4ad3ffe000-7f4b93ffe000 r--s 00000000 00:1b 6                          /a  b", "/a  b", false)]
    public void Mappings(string line, string path, bool sharedWritable)
    {
        Assert.True(ProcessFiles.TryParseMapping(line, out var mapping));
        Assert.Equal((path, sharedWritable), (mapping.Path, mapping.IsSharedWritable));
        Assert.Equal((0x7f4ad3ffe000ul, 0x7f4b93ffe000ul), (mapping.Start, mapping.End));
        Assert.Equal(mapping.Start - mapping.Offset, mapping.FileStart.Value);
    }

    [Theory]
    [InlineData("")]
    [InlineData("nonsense")]
    [InlineData("5-4 rw-s 0 00:00 1 /a")]
    [InlineData("4-5-6 rw-s 0 00:00 1 /a")]
    [InlineData("4-5 rw-s 0 00:00 x /a")]
    public void What_is_no_mapping(string line) => Assert.False(ProcessFiles.TryParseMapping(line, out _));

    [Theory]
    [InlineData(0x1b, "00:1b")]
    [InlineData(0xfd01, "fd:01")]
    [InlineData(0x1238_3445, "834:12345")]
    public void Device_numbers_look_as_in_maps(ulong device, string expected)
    {
        Assert.Equal(expected, ProcessFiles.FormatDevice(device));
    }

    [Fact]
    public void A_process_that_is_not_there_has_nothing()
    {
        const int None = int.MaxValue;
        Assert.Empty(ProcessFiles.CommandLine(None));
        Assert.Empty(ProcessFiles.Mappings(None));
        Assert.Empty(ProcessFiles.Descriptors(None));
        Assert.Equal(0ul, ProcessFiles.StartTime(None));
        Assert.Equal("", ProcessFiles.Executable(None));
    }

    [Fact]
    public void This_very_process()
    {
        Assert.NotEqual(0ul, ProcessFiles.StartTime(Environment.ProcessId));
        Assert.Contains(ProcessFiles.Mappings(Environment.ProcessId), m => m.Path == "[vdso]");
        Assert.NotEmpty(ProcessFiles.Descriptors(Environment.ProcessId));
        Assert.Equal(Environment.ProcessPath, ProcessFiles.Executable(Environment.ProcessId));
    }
}
