using System.Globalization;
using System.Net;
using System.Text;
using FCtrans.Loader;

namespace FCtrans.Commands;

/// <summary>
/// Builds the report of a split migration: one page with everything in it. No script, no address of anything outside, and every text
/// that came from a host or a user is encoded, so that it may be opened and mailed without a thought.
/// </summary>
internal sealed class HtmlReport
{
    private const int ChartWidth = 720;

    private readonly StringBuilder _html = new();
    private readonly SplitMigration _migration;
    private readonly VmRemotePaging? _paging;

    private HtmlReport(SplitMigration migration, VmRemotePaging? paging)
    {
        _migration = migration;
        _paging = paging;
    }

    /// <summary>The page.</summary>
    /// <param name="migration">What happened.</param>
    /// <param name="paging">The life after it; null when no main host says.</param>
    /// <param name="made">When the report was made.</param>
    public static string Make(SplitMigration migration, VmRemotePaging? paging, DateTimeOffset made)
    {
        var report = new HtmlReport(migration, paging);
        report.Head();
        report.Summary();
        report.Rounds();
        report.Map();
        report.Paging();
        report.Figures();
        report._html.Append(CultureInfo.InvariantCulture, $"<footer>Made by FCtrans on {made:yyyy-MM-dd HH:mm:ss zzz}.</footer>\n</main></body></html>\n");
        return report._html.ToString();
    }

    private static string Text(object? value) => WebUtility.HtmlEncode(Convert.ToString(value, CultureInfo.InvariantCulture) ?? "");

    private static string Number(double value) => value.ToString("0.##", CultureInfo.InvariantCulture);

    private void Head()
    {
        string title = $"Split migration of {_migration.VM}";
        _html.Append("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n")
            .Append("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n")
            .Append("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n")
            .Append(CultureInfo.InvariantCulture, $"<title>{Text(title)}</title>\n<style>{HtmlReportStyle.Css}</style></head>\n<body><main>\n")
            .Append(CultureInfo.InvariantCulture, $"<h1>{Text(title)}</h1>\n")
            .Append(CultureInfo.InvariantCulture, $"<p class=\"sub\"><span class=\"state {Text(_migration.State)}\">{Text(_migration.State)}</span> ")
            .Append(CultureInfo.InvariantCulture, $"from <b>{Text(_migration.SourceHost)}</b> to <b>{Text(_migration.MainHost)}</b>")
            .Append(_migration.SubHosts.Length > 0 ? $", with {string.Join(", ", _migration.SubHosts.Select(h => $"<b>{Text(h)}</b>"))}" : "")
            .Append(CultureInfo.InvariantCulture, $"; began {_migration.Started:yyyy-MM-dd HH:mm:ss}</p>\n");
        if (_migration.Error.Length > 0)
        {
            _html.Append(CultureInfo.InvariantCulture, $"<p class=\"error\">{Text(_migration.Error)}</p>\n");
        }
    }

    private void Summary()
    {
        _html.Append("<section class=\"tiles\">");
        Tile("took", Display.Seconds(_migration.TotalSeconds));
        Tile("stood still", $"{_migration.DowntimeMilliseconds.ToString("0", CultureInfo.InvariantCulture)} ms");
        Tile("sent", Display.Bytes(_migration.BytesSent));
        Tile("the guest's memory", Display.Bytes(_migration.GuestMemoryBytes));
        Tile("unused, never sent", Display.Bytes(_migration.UnusedBytesSkipped));
        _html.Append("</section>\n");
    }

    private void Tile(string label, string value) =>
        _html.Append(CultureInfo.InvariantCulture, $"<div><strong>{Text(value)}</strong><span>{Text(label)}</span></div>");

    private void Rounds()
    {
        if (_migration.Rounds.Count == 0)
        {
            return;
        }

        const int row = 26;
        string rest = _migration.LeftBytesAtSwitchOver > 0
            ? "What is left after the last comes from the source once the VM runs on its new host." : "The VM stands still in the last.";
        _html.Append(CultureInfo.InvariantCulture, $"<section><h2>Time line</h2><p>Each round sends what is used and has changed; its width is its time. {rest}</p>\n");
        double whole = Math.Max(_migration.Rounds.Sum(r => r.Seconds), 1e-9);
        ulong most = Math.Max(1, _migration.Rounds.Max(r => Math.Max(r.BytesSent, r.DirtyPages * 4096)));
        int height = row * 5;
        _html.Append(CultureInfo.InvariantCulture, $"<svg viewBox=\"0 -26 {ChartWidth} {height + 52}\" role=\"img\" aria-label=\"Bytes sent and changed in each round\">\n");
        double x = 0;
        foreach (SplitMigrationRound round in _migration.Rounds)
        {
            // Narrower than two pixels nobody could see it, or point at it.
            double width = Math.Max(2, ChartWidth * round.Seconds / whole);
            double sent = height * (double)round.BytesSent / most;
            double dirty = height * (double)(round.DirtyPages * 4096) / most;
            double at = Math.Min(x, ChartWidth - width);
            string about = $"Round {round.Round}: {Display.Seconds(round.Seconds)}, {Display.Bytes(round.BytesSent)} sent, {Display.Bytes(round.DirtyPages * 4096.0)} changed";
            _html.Append(CultureInfo.InvariantCulture, $"<g><title>{Text(about)}</title>")
                .Append(CultureInfo.InvariantCulture, $"<rect class=\"sent\" x=\"{Number(at)}\" y=\"{Number(height - sent)}\" width=\"{Number(Math.Max(1, width - 1))}\" height=\"{Number(Math.Max(1, sent))}\"/>")
                .Append(CultureInfo.InvariantCulture, $"<rect class=\"dirty\" x=\"{Number(at)}\" y=\"{Number(height - dirty)}\" width=\"{Number(Math.Max(1, (width - 1) / 3))}\" height=\"{Number(dirty)}\"/></g>\n");
            x += width;
        }

        _html.Append(CultureInfo.InvariantCulture, $"<line class=\"axis\" x1=\"0\" x2=\"{ChartWidth}\" y1=\"{height}\" y2=\"{height}\"/>")
            .Append(CultureInfo.InvariantCulture, $"<line class=\"axis\" x1=\"0\" x2=\"{ChartWidth}\" y1=\"0\" y2=\"0\"/><text class=\"end\" x=\"{ChartWidth}\" y=\"-6\">{Text(Display.Bytes(most))}</text>")
            .Append(CultureInfo.InvariantCulture, $"<text x=\"0\" y=\"{height + 20}\">0</text><text class=\"end\" x=\"{ChartWidth}\" y=\"{height + 20}\">{Text(Display.Seconds(whole))}</text></svg>\n")
            .Append("<p class=\"key\"><span><i class=\"sent\"></i> sent</span> <span><i class=\"dirty\"></i> changed by the guest before it</span></p>\n");
        _html.Append("<div class=\"scroll\"><table class=\"rounds\"><thead><tr><th>round</th><th>time</th><th>sent</th><th>changed</th><th>changed a second</th><th>left after it</th><th>unused</th></tr></thead><tbody>\n");
        SplitMigrationRound? before = null;
        for (int i = 0; i < _migration.Rounds.Count; i++)
        {
            SplitMigrationRound round = _migration.Rounds[i];
            // What a round finds changed was written while the round before it was sent.
            double left = i + 1 < _migration.Rounds.Count ? _migration.Rounds[i + 1].DirtyPages * 4096.0 : _migration.RemainingBytes + (double)_migration.LeftBytesAtSwitchOver;
            string rate = before is { Seconds: > 0 } ? Display.Bytes(round.DirtyPages * 4096.0 / before.Seconds) + "/s" : "";
            _html.Append(CultureInfo.InvariantCulture, $"<tr><td>{round.Round}</td><td>{Text(Display.Seconds(round.Seconds))}</td><td>{Text(Display.Bytes(round.BytesSent))}</td>")
                .Append(CultureInfo.InvariantCulture, $"<td>{Text(Display.Bytes(round.DirtyPages * 4096.0))}</td><td>{Text(rate)}</td><td>{Text(Display.Bytes(left))}</td><td>{Text(Display.Bytes(round.UnusedPages * 4096.0))}</td></tr>\n");
            before = round;
        }

        _html.Append("</tbody></table></div></section>\n");
    }

    private void Map()
    {
        double guest = _migration.GuestMemoryBytes;
        if (guest <= 0)
        {
            return;
        }

        _html.Append("<section><h2>Where the memory lies</h2>\n");
        Bar("before", guest, [
            (_migration.SourceHost, "main", _migration.UsedBytes), ("free in the guest", "free", _migration.FreeBytes), ("never touched", "never", _migration.NeverTouchedBytes)]);
        if (_paging is { } paging)
        {
            var parts = new List<(string, string, double)> { (paging.MainHost, "main", paging.ResidentBytes) };
            if (paging.PackedBytes > 0)
            {
                parts.Add(($"{paging.MainHost}, packed", "main", paging.PackedBytes));
            }

            parts.AddRange(paging.SubHosts.Zip(paging.RemoteBytesBySubHost).Select((p, i) => (p.First, $"sub{i % 4}", (double)p.Second)));
            parts.Add(("unused", "never", paging.UnusedBytes));
            parts.Add(("lost", "lost", paging.LostBytes));
            double known = parts.Sum(p => p.Item3);
            if (_migration.State == "PostCopy")
            {
                parts.Add(($"{_migration.SourceHost}, to be fetched", "free", guest - known));
            }

            // Two copies of a page take up room twice.
            Bar(paging.Copies > 1 ? "now, each copy counted" : "now", Math.Max(guest, known), parts);
        }

        _html.Append("</section>\n");
    }

    private void Bar(string label, double whole, IEnumerable<(string Name, string Class, double Bytes)> parts)
    {
        (string Name, string Class, double Bytes)[] all = [.. parts.Where(p => p.Bytes > 0)];
        _html.Append(CultureInfo.InvariantCulture, $"<h3>{Text(label)}</h3><svg viewBox=\"0 0 {ChartWidth} 36\" role=\"img\" aria-label=\"{Text(label)}\">");
        double x = 0;
        foreach ((string name, string kind, double bytes) in all)
        {
            double width = Math.Min(ChartWidth - x, ChartWidth * bytes / whole);
            _html.Append(CultureInfo.InvariantCulture, $"<rect class=\"{kind}\" x=\"{Number(x)}\" y=\"0\" width=\"{Number(Math.Max(0, width))}\" height=\"36\"><title>{Text(name)}: {Text(Display.Bytes(bytes))}</title></rect>");
            x += width;
        }

        _html.Append("</svg><p class=\"key\">");
        foreach ((string name, string kind, double bytes) in all)
        {
            _html.Append(CultureInfo.InvariantCulture, $"<span><i class=\"{kind}\"></i> {Text(name)} <b>{Text(Display.Bytes(bytes))}</b> ({Text(Display.Share(bytes, whole))})</span> ");
        }

        _html.Append("</p>\n");
    }

    private void Paging()
    {
        if (_paging is not { } paging)
        {
            return;
        }

        // A worker counts anew when it is started again.
        string since = paging.Restarts == 0 ? "the switch-over" : "the main host's worker was last started again";
        _html.Append(CultureInfo.InvariantCulture, $"<section><h2>Remote paging since {Text(since)}</h2>\n<section class=\"tiles\">");
        Tile("pages fetched", paging.PageIns.ToString("N0", CultureInfo.InvariantCulture));
        Tile("of them ahead of need", paging.PrefetchedPages.ToString("N0", CultureInfo.InvariantCulture));
        Tile("pages pushed out", paging.PageOuts.ToString("N0", CultureInfo.InvariantCulture));
        Tile("fresh pages, of zeros", paging.UnusedFaults.ToString("N0", CultureInfo.InvariantCulture));
        Tile("errors", paging.Errors.ToString("N0", CultureInfo.InvariantCulture));
        _html.Append("</section>\n<h3>How long the guest waited</h3>\n");
        Latency("for memory on a sub-host", paging.RemoteFaultLatency);
        _html.Append(LatencyTimelineChart.Draw(paging.RemoteFaultTimeline, ChartWidth));
        Latency("for fresh memory", paging.UnusedFaultLatency);
        _html.Append("</section>\n");
    }

    /// <summary>On a logarithmic scale from 1 µs to 10 s.</summary>
    private void Latency(string label, FaultLatencyFigures figures)
    {
        if (figures.Count == 0)
        {
            return;
        }

        (string Name, double Microseconds)[] marks =
        [
            ("half", figures.MedianMicroseconds), ("90 %", figures.P90Microseconds), ("99 %", figures.P99Microseconds),
            ("99.9 %", figures.P999Microseconds), ("all", figures.MaxMicroseconds),
        ];
        const int row = 24;
        const int left = 84;
        const double decades = 7;
        _html.Append(CultureInfo.InvariantCulture, $"<p>{Text(label)}: {figures.Count.ToString("N0", CultureInfo.InvariantCulture)} times, of which at most so long (the bars are logarithmic):</p>")
            .Append(CultureInfo.InvariantCulture, $"<svg viewBox=\"0 0 {ChartWidth} {(row * marks.Length) + 4}\" role=\"img\" aria-label=\"{Text(label)}\">");
        for (int i = 0; i < marks.Length; i++)
        {
            double share = Math.Clamp(Math.Log10(Math.Max(1, marks[i].Microseconds)) / decades, 0.005, 1);
            double width = (ChartWidth - left - 100) * share;
            _html.Append(CultureInfo.InvariantCulture, $"<text x=\"0\" y=\"{(i * row) + 16}\">{Text(marks[i].Name)}</text>")
                .Append(CultureInfo.InvariantCulture, $"<rect class=\"main\" x=\"{left}\" y=\"{(i * row) + 3}\" width=\"{Number(width)}\" height=\"16\"/>")
                .Append(CultureInfo.InvariantCulture, $"<text x=\"{Number(left + width + 6)}\" y=\"{(i * row) + 16}\">{Text(Display.Microseconds(marks[i].Microseconds))}</text>");
        }

        _html.Append("</svg>\n");
    }

    private void Figures()
    {
        _html.Append("<section><h2>All figures</h2>\n");
        Properties("the migration", _migration);
        foreach (SplitMigrationTraffic traffic in _migration.Traffic)
        {
            Properties($"sent to {traffic.HostName}", traffic);
        }

        if (_paging is not null)
        {
            Properties("the remote paging", _paging);
            Properties("waiting for remote memory", _paging.RemoteFaultLatency);
            Properties("waiting for fresh memory", _paging.UnusedFaultLatency);
        }

        _html.Append("</section>\n");
    }

    private void Properties(string label, object of)
    {
        _html.Append(CultureInfo.InvariantCulture, $"<details open=\"open\"><summary>{Text(label)}</summary><div class=\"scroll\"><table><tbody>\n");
        foreach (System.Reflection.PropertyInfo property in of.GetType().GetProperties())
        {
            object? value = property.GetValue(of);
            string? text = value switch
            {
                string s => s,
                string[] names => string.Join(", ", names),
                ulong[] numbers => string.Join(", ", numbers.Select(n => property.Name.Contains("Bytes", StringComparison.Ordinal) ? Display.Bytes(n) : n.ToString("N0", CultureInfo.InvariantCulture))),
                ulong n when property.Name.Contains("Bytes", StringComparison.Ordinal) => $"{n.ToString("N0", CultureInfo.InvariantCulture)} ({Display.Bytes(n)})",
                double d when property.Name.Contains("Bytes", StringComparison.Ordinal) => $"{d.ToString("N0", CultureInfo.InvariantCulture)} ({Display.Bytes(d)})",
                double d => d.ToString("N3", CultureInfo.InvariantCulture),
                int or uint or ulong or long when !property.Name.EndsWith("ProcessId", StringComparison.Ordinal) => string.Format(CultureInfo.InvariantCulture, "{0:N0}", value),
                DateTime time => time.ToString("yyyy-MM-dd HH:mm:ss", CultureInfo.InvariantCulture),
                IFormattable plain => plain.ToString(null, CultureInfo.InvariantCulture),
                bool yes => yes ? "yes" : "no",
                _ => null,
            };
            if (text is not null)
            {
                _html.Append(CultureInfo.InvariantCulture, $"<tr><th scope=\"row\">{Text(property.Name)}</th><td>{Text(text)}</td></tr>\n");
            }
        }

        _html.Append("</tbody></table></div></details>\n");
    }
}
