using System.Diagnostics;
using System.Numerics;

namespace FCtrans.Agent.Paging;

/// <summary>What a <see cref="LatencyTimeline"/> has counted.</summary>
/// <param name="ElapsedSeconds">From the beginning to now.</param>
/// <param name="ColumnSeconds">How long each column is.</param>
/// <param name="Columns">By column, from the beginning to now; each by row, see <see cref="LatencyTimeline.RowOf"/>.</param>
internal readonly record struct LatencyTimelineFigures(double ElapsedSeconds, double ColumnSeconds, long[][] Columns);

/// <summary>
/// How long faults took, over time: a table of counts whose columns are equal spans of time and whose rows are spans of latency, half
/// an octave each. It covers all time since the beginning in at most <see cref="MaxColumns"/> columns: when they are full, every two
/// become one and a column lasts twice as long. Any thread may record, without allocating or waiting for another that records.
/// </summary>
/// <remarks>
/// Counts are moved by taking them out of one cell and adding them to another, each atomically, so none is lost or counted twice.
/// Whoever records while columns are joined may hit the place of the scale before: a count is then some columns late, and one that
/// would lie in the future is read as of now.
/// </remarks>
internal sealed class LatencyTimeline
{
    /// <summary>At most so many columns, at least half as many once it is full for the first time.</summary>
    public const int MaxColumns = 64;

    /// <summary>From under 0.77 µs to over 25 s.</summary>
    public const int Rows = 52;

    // 2^9 ns: the first row ends at 1.5 times that.
    private const int FirstExponent = 9;

    private readonly long[] _cells = new long[MaxColumns * Rows];
    private readonly Lock _joining = new(); // guards changes of _shift
    private readonly long _beganAt;
    private volatile int _shift;

    /// <param name="beganAt">The beginning, a <see cref="Stopwatch"/> timestamp.</param>
    public LatencyTimeline(long beganAt) => _beganAt = beganAt;

    /// <summary>The row of a latency: two an octave, the first and the last without an end.</summary>
    public static int RowOf(long nanoseconds)
    {
        long value = Math.Max(nanoseconds, 1L << FirstExponent);
        int exponent = BitOperations.Log2((ulong)value);
        int row = (2 * (exponent - FirstExponent)) + (int)((value >> (exponent - 1)) & 1);
        return Math.Min(row, Rows - 1);
    }

    /// <summary>Where a row ends, in nanoseconds: the first latency that is in the next one.</summary>
    public static long EndOf(int row) => (row & 1) == 0 ? 3L << (FirstExponent + (row / 2) - 1) : 1L << (FirstExponent + (row / 2) + 1);

    /// <summary>Counts a fault.</summary>
    /// <param name="nanoseconds">How long it took.</param>
    /// <param name="now">When it ended, a <see cref="Stopwatch"/> timestamp.</param>
    public void Record(long nanoseconds, long now)
    {
        long column = ColumnAt(now);
        if (column >= MaxColumns)
        {
            Join(now);
            column = Math.Min(ColumnAt(now), MaxColumns - 1);
        }

        Interlocked.Increment(ref _cells[(column * Rows) + RowOf(nanoseconds)]);
    }

    /// <summary>All counts up to now.</summary>
    public LatencyTimelineFigures Read(long now)
    {
        if (ColumnAt(now) >= MaxColumns)
        {
            Join(now);
        }

        lock (_joining)
        {
            var columns = new long[Math.Clamp(ColumnAt(now) + 1, 1, MaxColumns)][];
            for (int i = 0; i < columns.Length; i++)
            {
                columns[i] = new long[Rows];
            }

            for (int i = 0; i < _cells.Length; i++)
            {
                columns[Math.Min(i / Rows, columns.Length - 1)][i % Rows] += Interlocked.Read(ref _cells[i]);
            }

            return new(Math.Max(0, now - _beganAt) / (double)Stopwatch.Frequency, 1L << _shift, columns);
        }
    }

    private long ColumnAt(long now) => (Math.Max(0, now - _beganAt) / Stopwatch.Frequency) >> _shift;

    private void Join(long now)
    {
        lock (_joining)
        {
            while (ColumnAt(now) >= MaxColumns)
            {
                for (int to = 0; to < MaxColumns / 2; to++)
                {
                    for (int row = 0; row < Rows; row++)
                    {
                        ref long into = ref _cells[(to * Rows) + row];
                        if (to > 0)
                        {
                            Interlocked.Add(ref into, Interlocked.Exchange(ref _cells[(2 * to * Rows) + row], 0));
                        }

                        Interlocked.Add(ref into, Interlocked.Exchange(ref _cells[(((2 * to) + 1) * Rows) + row], 0));
                    }
                }

                _shift++;
            }
        }
    }
}
