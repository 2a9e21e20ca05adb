using FCtrans.Contracts;

namespace FCtrans;

/// <summary>How long the faults of a span of time took to answer.</summary>
public sealed class FaultLatencyInterval
{
    private const int MaxColumns = 64;
    private const int MaxRows = 64;

    // The year 2100; some columns after it are still dates.
    private const long LatestMilliseconds = 4_102_444_800_000;

    private readonly int _firstRow;
    private readonly ulong[] _counts;

    private FaultLatencyInterval(DateTime time, double seconds, FaultLatencyColumn column)
    {
        Time = time;
        Seconds = seconds;
        _firstRow = (int)Math.Min(column.FirstRow, MaxRows);
        _counts = [.. column.Counts.Take(MaxRows)];
        Count = _counts.Aggregate(0UL, (sum, c) => sum + c);
    }

    /// <summary>When it begins, by the host's clock.</summary>
    public DateTime Time { get; }

    /// <summary>How long it is.</summary>
    public double Seconds { get; }

    /// <summary>How many faults it has.</summary>
    public ulong Count { get; }

    /// <summary>Half of them took less than this; null where there is none. Steps of half an octave.</summary>
    public double? MedianMicroseconds => Percentile(0.5);

    /// <summary>99 % of them took less than this; null where there is none.</summary>
    public double? P99Microseconds => Percentile(0.99);

    /// <summary>All of them took less than this; null where there is none.</summary>
    public double? MaxMicroseconds => Percentile(1);

    /// <summary>The counts by latency, with the microseconds that each begins and ends at.</summary>
    internal IEnumerable<(int Row, double FromMicroseconds, double ToMicroseconds, ulong Count)> Cells =>
        _counts.Select((count, i) => (_firstRow + i, EndOf(_firstRow + i - 1), EndOf(_firstRow + i), count)).Where(c => c.count > 0);

    /// <inheritdoc/>
    public override string ToString() => $"{Time:HH:mm:ss}: {Count}";

    internal static FaultLatencyInterval[] From(FaultLatencyTimeline? timeline)
    {
        if (timeline is null || timeline.ColumnSeconds is not (> 0 and < 1e8))
        {
            return [];
        }

        // A host's figures are believed only as far as a date can be made of them.
        DateTime began = DateTimeOffset.FromUnixTimeMilliseconds(Math.Clamp(timeline.BeganUnixMilliseconds, 0, LatestMilliseconds)).LocalDateTime;
        return [.. timeline.Columns.Take(MaxColumns).Select((c, i) => new FaultLatencyInterval(
            began.AddSeconds(i * timeline.ColumnSeconds), timeline.ColumnSeconds, c))];
    }

    /// <summary>As worker.proto says: row 2n ends at 768 ns * 2^n, row 2n+1 at 1024 ns * 2^n.</summary>
    private static double EndOf(int row) => row < 0 ? 0 : (row % 2 == 0 ? 0.768 : 1.024) * Math.Pow(2, row / 2);

    private double? Percentile(double share)
    {
        ulong seen = 0;
        for (int i = 0; i < _counts.Length; i++)
        {
            seen += _counts[i];
            if (seen > 0 && seen >= Count * share)
            {
                return EndOf(_firstRow + i);
            }
        }

        return null;
    }
}
