using System.Diagnostics;
using FCtrans.Agent.Paging;
using Xunit;

namespace FCtrans.Unit.Tests.Paging;

/// <summary>The latencies of faults over time, as the report of a migration draws them.</summary>
public sealed class LatencyTimelineTests
{
    private const long Begin = 1_000_000_007;

    private static long At(double seconds) => Begin + (long)(seconds * Stopwatch.Frequency);

    [Fact]
    public void EachLatencyIsInTheRowThatEndsAboveIt()
    {
        Assert.Equal(0, LatencyTimeline.RowOf(0));
        Assert.Equal(LatencyTimeline.Rows - 1, LatencyTimeline.RowOf(long.MaxValue));
        for (long ns = 512; ns < 30_000_000_000; ns = (ns * 5 / 4) + 1)
        {
            int row = LatencyTimeline.RowOf(ns);
            Assert.InRange(ns, row == 0 ? 0 : LatencyTimeline.EndOf(row - 1), row == LatencyTimeline.Rows - 1 ? long.MaxValue : LatencyTimeline.EndOf(row) - 1);
        }
    }

    [Fact]
    public void AFaultIsCountedWhereItEnded()
    {
        var timeline = new LatencyTimeline(Begin);
        timeline.Record(100_000, At(0.5));
        timeline.Record(100_000, At(0.9));
        timeline.Record(9_000_000, At(3.1));
        LatencyTimelineFigures figures = timeline.Read(At(4.5));
        Assert.Equal(1, figures.ColumnSeconds);
        Assert.Equal([2, 0, 0, 1, 0], figures.Columns.Select(c => c.Sum()));
        Assert.Equal(2, figures.Columns[0][LatencyTimeline.RowOf(100_000)]);
        Assert.Equal(1, figures.Columns[3][LatencyTimeline.RowOf(9_000_000)]);
    }

    [Fact]
    public void HoweverLongItGoesOnAllOfItIsCoveredAndNothingLost()
    {
        var timeline = new LatencyTimeline(Begin);
        const int seconds = 1000;
        for (int i = 0; i < seconds; i++)
        {
            timeline.Record(50_000, At(i));
        }

        LatencyTimelineFigures figures = timeline.Read(At(seconds - 1));
        Assert.Equal(16, figures.ColumnSeconds);
        Assert.Equal(63, figures.Columns.Length);
        Assert.All(figures.Columns[..^1], c => Assert.Equal(16, c.Sum()));
        Assert.Equal(seconds, figures.Columns.Sum(c => c.Sum()));

        // A long rest, after which somebody only looks.
        figures = timeline.Read(At(100_000));
        Assert.InRange(figures.Columns.Length, LatencyTimeline.MaxColumns / 2, LatencyTimeline.MaxColumns);
        Assert.Equal(seconds, figures.Columns.Sum(c => c.Sum()));
    }

    [Fact]
    public void ManyThreadsLoseNoCountWhileColumnsAreJoined()
    {
        var timeline = new LatencyTimeline(Begin);
        const int each = 20_000;
        Parallel.For(0, 4, thread =>
        {
            for (int i = 0; i < each; i++)
            {
                timeline.Record(1000 << thread, At(i / 20.0));
            }
        });
        LatencyTimelineFigures figures = timeline.Read(At(each / 20.0));
        for (int thread = 0; thread < 4; thread++)
        {
            Assert.Equal(each, figures.Columns.Sum(c => c[LatencyTimeline.RowOf(1000 << thread)]));
        }
    }

    [Fact]
    public void RecordingAllocatesNothing()
    {
        var timeline = new LatencyTimeline(Begin);
        timeline.Record(1, At(0));
        timeline.Record(1, At(64));
        Assert.Equal(0, Allocations.Of(() =>
        {
            for (int i = 0; i < 1000; i++)
            {
                timeline.Record(i * 1000, At(i));
            }
        }));
    }
}
