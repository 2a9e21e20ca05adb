using FCtrans.Agent.Workers;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Workers;

public sealed class WorkerDirectoryTests
{
    [Theory]
    [InlineData("")]
    [InlineData("../../../../etc/cron.d/aaaaaaaaaa")]
    [InlineData("0123456789ABCDEF0123456789ABCDEF")]
    [InlineData("0123456789abcdef0123456789abcde")]
    [InlineData("0123456789abcdef0123456789abcde/")]
    public void WhatIsNoSplitIdNamesNoDirectory(string splitId) =>
        Assert.Throws<ArgumentException>(() => WorkerDirectory.Of(splitId, WorkerRole.Main));

    [Fact]
    public void ARoleThatDoesNotExistNamesNoDirectory() =>
        Assert.Throws<ArgumentException>(() => WorkerDirectory.Of(NewId(), WorkerRole.Unspecified));

    [Fact]
    public void WhatIsWrittenIsThereForAnotherProcessAndGoesWithTheDirectory()
    {
        var directory = WorkerDirectory.Of(NewId(), WorkerRole.Sub);
        directory.Create();
        try
        {
            Assert.Equal(
                UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, File.GetUnixFileMode(directory.Path));
            directory.WriteSpec(new WorkerSpec { SplitId = directory.SplitId, VmName = "vm" });
            directory.Mark(Markers.Ready, "4711");
            var again = WorkerDirectory.Of(directory.SplitId, WorkerRole.Sub);
            Assert.Equal("vm", again.ReadSpec()!.VmName);
            Assert.Equal(4711, again.ReadNumber(Markers.Ready));
            Assert.False(again.Has(Markers.Ended));
            Assert.Contains(WorkerDirectory.All(), d => d.SplitId == directory.SplitId && d.Role == WorkerRole.Sub);
        }
        finally
        {
            directory.Remove();
        }

        Assert.False(Directory.Exists(Path.GetDirectoryName(directory.Path)));
    }

    [Fact]
    public void AProcessIdThatAnotherProgramHasGotIsNotTakenForTheWorker()
    {
        var directory = WorkerDirectory.Of(NewId(), WorkerRole.Sub);
        directory.Create();
        try
        {
            // The process that runs this test lives, and its arguments do not name the directory.
            directory.WriteProcessId(Markers.WorkerPid);
            Assert.Equal(0, directory.RunningProcess(Markers.WorkerPid));
        }
        finally
        {
            directory.Remove();
        }
    }

    private static string NewId() => Guid.NewGuid().ToString("N");

    /// <summary>It would take what it does not know of for unused memory.</summary>
    [Fact]
    public void What_a_later_version_has_made_is_left_alone()
    {
        var directory = WorkerDirectory.Of(NewId(), WorkerRole.Main);
        directory.Create();
        try
        {
            Assert.False(directory.IsOfLaterFormat);
            directory.Mark(Markers.Format, $"{WorkerDirectory.Format}");
            Assert.False(directory.IsOfLaterFormat);
            directory.Mark(Markers.Format, $"{WorkerDirectory.Format + 1}");
            Assert.True(directory.IsOfLaterFormat);
            directory.WriteSpec(new() { Role = WorkerRole.Main, SplitId = directory.SplitId });
            directory.Mark(Markers.Ready, "1");
            Assert.Equal(1, WorkerHost.Run(directory));
            Assert.Equal($"{WorkerDirectory.Format + 1}", directory.Read(Markers.Format));
            Assert.False(directory.Has(Markers.Ended) || directory.Has(Markers.Refused));
        }
        finally
        {
            directory.Remove();
        }
    }
}
