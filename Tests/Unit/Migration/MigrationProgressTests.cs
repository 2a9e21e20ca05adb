using System.Diagnostics;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Migration;

public sealed class MigrationProgressTests
{
    [Fact]
    public void The_downtime_counts_on_while_the_vm_stands_still_and_no_longer()
    {
        var progress = new MigrationProgress();
        progress.Begin();
        long stopped = Stopwatch.GetTimestamp() - Stopwatch.Frequency;
        progress.Update(s => s.State = MigrationState.SwitchOver);
        Assert.Equal(0, progress.Snapshot().DowntimeMilliseconds);
        progress.VmStands(stopped);
        Assert.InRange(progress.Snapshot().DowntimeMilliseconds, 1000, 60_000);
        progress.VmRuns(stopped + (Stopwatch.Frequency / 4));
        Assert.Equal(250, progress.Snapshot().DowntimeMilliseconds, 0.001);
    }

    [Fact]
    public void A_worker_that_is_started_again_after_the_commitment_goes_on_with_the_figures()
    {
        var directory = WorkerDirectory.Of(Guid.NewGuid().ToString("N"), WorkerRole.Source);
        directory.Create();
        try
        {
            var first = new MigrationProgress();
            first.Begin();
            long stopped = Stopwatch.GetTimestamp() - Stopwatch.Frequency;
            first.VmStands(stopped);
            first.Update(s =>
            {
                s.State = MigrationState.SwitchOver;
                s.Mode = MigrationMode.PostCopy;
                s.Round = 3;
                s.Traffic.Add(new HostTraffic { Host = "main", BytesSent = 4711 });
            });
            CommittedFigures.Keep(directory, first);

            var second = new MigrationProgress();
            CommittedFigures.Restore(directory, second);
            var status = second.Snapshot();
            Assert.Equal((MigrationState.SwitchOver, MigrationMode.PostCopy, 3), (status.State, status.Mode, status.Round));
            Assert.Equal(4711UL, Assert.Single(status.Traffic).BytesSent);
            Assert.InRange(status.DowntimeMilliseconds, 1000, 60_000);
            Assert.True(status.TotalSeconds > 0);

            // It runs at last; a third worker must not count on.
            second.VmRuns(stopped + (2 * Stopwatch.Frequency));
            second.StopClock();
            double total = second.Snapshot().TotalSeconds;
            CommittedFigures.Keep(directory, second);
            var third = new MigrationProgress();
            CommittedFigures.Restore(directory, third);
            third.VmRuns(Stopwatch.GetTimestamp() + (60 * Stopwatch.Frequency));
            third.StopClock();
            Assert.Equal(2000, third.Snapshot().DowntimeMilliseconds, 0.001);
            Assert.Equal(total, third.Snapshot().TotalSeconds, 0.000001);
        }
        finally
        {
            directory.Remove();
        }
    }

    [Fact]
    public void Figures_that_were_not_kept_are_no_hindrance()
    {
        var directory = WorkerDirectory.Of(Guid.NewGuid().ToString("N"), WorkerRole.Source);
        directory.Create();
        try
        {
            var progress = new MigrationProgress();
            CommittedFigures.Restore(directory, progress);
            Assert.Equal(MigrationState.Preparing, progress.Snapshot().State);
        }
        finally
        {
            directory.Remove();
        }
    }
}
