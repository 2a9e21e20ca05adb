using System.Globalization;
using System.Net;
using System.Text;
using FCtrans.Loader;

namespace FCtrans.Commands;

/// <summary>
/// The latencies of faults over time, as a picture for the report: time goes to the right, latency up on a logarithmic scale, and the
/// more faults fell into a cell, the stronger its colour.
/// </summary>
internal static class LatencyTimelineChart
{
    private const int RowHeight = 10;
    private const int Left = 84;
    private const int Foot = 26;

    /// <summary>The picture, or nothing when there was no fault.</summary>
    public static string Draw(IReadOnlyList<FaultLatencyInterval> timeline, int width)
    {
        (int Column, int Row, double From, double To, ulong Count)[] cells =
            [.. timeline.SelectMany((interval, i) => interval.Cells.Select(c => (i, c.Row, c.FromMicroseconds, c.ToMicroseconds, c.Count)))];
        if (cells.Length == 0)
        {
            return "";
        }

        // Whole decades around what there is would waste the picture; a row of air on either side does.
        int lowest = Math.Max(0, cells.Min(c => c.Row) - 1);
        int rows = cells.Max(c => c.Row) + 2 - lowest;
        int height = rows * RowHeight;
        double columnWidth = (width - Left) / (double)timeline.Count;
        double most = Math.Log(1 + cells.Max(c => c.Count));
        var svg = new StringBuilder();
        svg.Append("<h3>How long it waited for memory on a sub-host, over time</h3>\n")
            .Append(CultureInfo.InvariantCulture, $"<svg class=\"heat\" viewBox=\"0 0 {width} {height + Foot}\" role=\"img\" aria-label=\"Latencies of faults over time\">\n");
        foreach ((int row, string label) in Marks(lowest, rows))
        {
            int y = height - ((row - lowest) * RowHeight);
            svg.Append(CultureInfo.InvariantCulture, $"<line class=\"axis\" x1=\"{Left}\" x2=\"{width}\" y1=\"{y}\" y2=\"{y}\"/><text x=\"0\" y=\"{y + 5}\">{label}</text>");
        }

        foreach ((int column, int row, double from, double to, ulong count) in cells)
        {
            double strength = 0.15 + (0.85 * Math.Log(1 + count) / most);
            FaultLatencyInterval interval = timeline[column];
            string about = $"{interval.Time.ToString("HH:mm:ss", CultureInfo.InvariantCulture)} for {Display.Seconds(interval.Seconds)}: "
                + $"{count.ToString("N0", CultureInfo.InvariantCulture)} of {Display.Microseconds(from)} to {Display.Microseconds(to)}";
            svg.Append(CultureInfo.InvariantCulture, $"<rect class=\"main\" opacity=\"{strength:0.##}\" x=\"{Left + (column * columnWidth):0.##}\" y=\"{height - ((row - lowest + 1) * RowHeight)}\" ")
                .Append(CultureInfo.InvariantCulture, $"width=\"{Math.Max(1, columnWidth - 0.5):0.##}\" height=\"{RowHeight - 1}\"><title>{WebUtility.HtmlEncode(about)}</title></rect>\n");
        }

        svg.Append(CultureInfo.InvariantCulture, $"<text x=\"{Left}\" y=\"{height + 20}\">{timeline[0].Time:HH:mm:ss}</text>")
            .Append(CultureInfo.InvariantCulture, $"<text class=\"end\" x=\"{width}\" y=\"{height + 20}\">{timeline[^1].Time.AddSeconds(timeline[^1].Seconds):HH:mm:ss}</text></svg>\n")
            .Append(CultureInfo.InvariantCulture, $"<p class=\"key\">each column {WebUtility.HtmlEncode(Display.Seconds(timeline[0].Seconds))}; the stronger the colour, the more faults</p>\n");
        return svg.ToString();
    }

    /// <summary>The rows that begin at a power of four microseconds or so: 1.0 µs is where row 2 begins (1.024), and each octave has two rows.</summary>
    private static IEnumerable<(int Row, string Label)> Marks(int lowest, int rows)
    {
        for (int row = lowest; row <= lowest + rows; row++)
        {
            if (row % 4 == 2)
            {
                yield return (row, WebUtility.HtmlEncode(Display.Microseconds(1.024 * Math.Pow(2, (row - 2) / 2))));
            }
        }
    }
}
