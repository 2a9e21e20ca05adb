using System.Text;
using FCtrans.Loader;

namespace FCtrans.Commands;

/// <summary>
/// The remote paging of split VMs as a picture that fits a window: lines are cut at its edge, since a longer one would take two, and a VM
/// that has no room is counted only, since what goes beyond the last line would scroll the picture away.
/// </summary>
internal static class PagingScreen
{
    // xterm's control sequences.
    private const string Home = "\u001b[H";
    private const string ClearLine = "\u001b[K";
    private const string ClearRest = "\u001b[J";
    private const int BarWidth = 40;

    /// <summary>The picture as a terminal takes it, from the window's first line on.</summary>
    public static string Draw(IEnumerable<(VmRemotePaging Now, VmRemotePagingSample? Since)> vms, DateTime time, int width, int height)
    {
        string[][] blocks = [.. vms.Select(v => Block(v.Now, v.Since))];
        var text = new StringBuilder(Home);
        foreach (string line in Lay($"Remote paging at {time:HH:mm:ss}; Ctrl+C ends.", blocks, width, height))
        {
            // No line end behind the last line: it would scroll the first away where the picture is as high as the window.
            text.Append(text.Length > Home.Length ? "\r\n" : "").Append(line).Append(ClearLine);
        }

        return text.Append(ClearRest).ToString();
    }

    /// <summary>The lines that a window has room for.</summary>
    /// <param name="heading">The first.</param>
    /// <param name="blocks">The lines of each VM.</param>
    /// <param name="width">Characters in a line of the window; the last one stays free, as clearing the line's rest would clear it.</param>
    /// <param name="height">Lines of the window.</param>
    internal static string[] Lay(string heading, string[][] blocks, int width, int height)
    {
        List<string> lines = [heading];
        int shown = 0;
        while (shown < blocks.Length)
        {
            // An empty line above each, and one for what is left out if this is not the last.
            int needed = 1 + blocks[shown].Length + (shown < blocks.Length - 1 ? 1 : 0);
            if (lines.Count + needed > height)
            {
                break;
            }

            lines.Add("");
            lines.AddRange(blocks[shown++]);
        }

        if (blocks.Length == 0)
        {
            lines.AddRange(["", "No split VM runs on these hosts."]);
        }
        else if (shown < blocks.Length)
        {
            lines.Add(shown > 0 ? $"… {blocks.Length - shown} more" : $"… {blocks.Length} VMs: the window is too low");
        }

        return [.. lines.Take(Math.Max(1, height)).Select(line => line.Length >= width ? line[..Math.Max(0, width - 1)] : line)];
    }

    private static string[] Block(VmRemotePaging now, VmRemotePagingSample? since)
    {
        // What is packed is here too.
        ulong here = now.ResidentBytes + now.PackedBytes;
        double whole = Math.Max(1, (double)here + now.RemoteBytes + now.UnusedBytes);
        int resident = (int)Math.Round(BarWidth * here / whole);
        int remote = Math.Min(BarWidth - resident, (int)Math.Round(BarWidth * now.RemoteBytes / whole));
        return
        [
            $"{now.VM} ({now.State})",
            $"  [{new string('#', resident)}{new string('=', remote)}{new string('.', BarWidth - resident - remote)}]  "
                + $"# here {Display.Bytes(here)}  = remote {Display.Bytes(now.RemoteBytes)}  . unused {Display.Bytes(now.UnusedBytes)}",
            since is null
                ? "  what moves a second is known after the first interval"
                : $"  in {since.PageInsPerSecond,9:N0} pages/s ({Display.Bytes(since.BytesInPerSecond)}/s)   out {since.PageOutsPerSecond,9:N0} pages/s "
                    + $"({Display.Bytes(since.BytesOutPerSecond)}/s)   fresh {since.UnusedFaultsPerSecond,9:N0} pages/s",
            $"  the guest waits {now.RemoteFaultLatency.MedianMicroseconds:N0} µs (99 %: {now.RemoteFaultLatency.P99Microseconds:N0} µs) for a remote page; errors: {now.Errors}",
        ];
    }
}
