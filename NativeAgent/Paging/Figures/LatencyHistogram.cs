using System.Diagnostics;
using HdrHistogram;

namespace FCtrans.Agent.Paging;

/// <summary>Percentiles of one kind of fault, in microseconds, from reading the fault to the guest thread's wake-up call.</summary>
internal readonly record struct LatencyFigures(long Count, double P50, double P90, double P99, double P999, double Max);

/// <summary>How long faults took: 100 ns to 10 minutes, two significant digits. Any thread may record; recording does not allocate.</summary>
internal sealed class LatencyHistogram
{
    private const long HighestNanoseconds = 600_000_000_000;
    private static readonly double s_nanosecondsPerTick = 1e9 / Stopwatch.Frequency;

    private readonly LongConcurrentHistogram _histogram = new(100, HighestNanoseconds, 2);
    private readonly LatencyTimeline _timeline = new(Stopwatch.GetTimestamp());
    private long _max;

    /// <param name="startedAt">A <see cref="Stopwatch"/> timestamp.</param>
    public void RecordSince(long startedAt)
    {
        long now = Stopwatch.GetTimestamp();
        long nanoseconds = (long)((now - startedAt) * s_nanosecondsPerTick);
        _timeline.Record(nanoseconds, now);
        _histogram.RecordValue(Math.Clamp(nanoseconds, 0, HighestNanoseconds));
        // A lost race loses one of two near-equal maxima, which is no harm to a figure.
        if (nanoseconds > Volatile.Read(ref _max))
        {
            Volatile.Write(ref _max, nanoseconds);
        }
    }

    /// <summary>The same over time, since this was made.</summary>
    public LatencyTimelineFigures ReadTimeline() => _timeline.Read(Stopwatch.GetTimestamp());

    public LatencyFigures Read()
    {
        var copy = _histogram.Copy();
        double max = Volatile.Read(ref _max) / 1000.0;
        return copy.TotalCount == 0 ? default : new(
            copy.TotalCount, At(50), At(90), At(99), At(99.9), max);

        // The histogram gives the end of the step that a value is in, which may lie beyond all that there was.
        double At(double percentile) => Math.Min(copy.GetValueAtPercentile(percentile) / 1000.0, max);
    }
}
