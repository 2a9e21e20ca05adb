using System.Management.Automation;
using System.Text;
using FCtrans.Client;
using FCtrans.Contracts;
using FCtrans.Loader;

namespace FCtrans.Commands;

/// <summary>Watch-VmRemotePaging: the remote paging of split VMs, live in the terminal, or an object for each interval.</summary>
[Cmdlet(VerbsCommon.Watch, "VmRemotePaging")]
[OutputType(typeof(VmRemotePagingSample))]
public sealed class WatchVmRemotePagingCommand : FCtransCmdlet
{
    // xterm's control sequences: the other screen, which leaves this one as it was, and its cursor.
    private const string EnterScreen = "\u001b[?1049h\u001b[?25l";
    private const string LeaveScreen = "\u001b[?25h\u001b[?1049l";
    private const string Home = "\u001b[H";
    private const string ClearLine = "\u001b[K";
    private const string ClearRest = "\u001b[J";

    /// <summary>Split VMs (also as they were before their migration), or names of VMs with wildcards. Default: all.</summary>
    [Parameter(Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmVmCompleter))]
    public VmReference[]? VM { get; set; }

    /// <summary>Main hosts to look on. Default: all connected hosts.</summary>
    [Parameter]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmHostCompleter))]
    public KvmHostReference[]? KvmHost { get; set; }

    /// <summary>Seconds from one look to the next, 0.1 to 3600. Default: 1.</summary>
    [Parameter]
    [ValidateRange(0.1, 3600.0)]
    public double Interval { get; set; } = 1;

    /// <summary>How many intervals; 0: until Ctrl+C.</summary>
    [Parameter]
    [ValidateRange(0, int.MaxValue)]
    public int Count { get; set; }

    /// <summary>Write objects though the output is a terminal.</summary>
    [Parameter]
    public SwitchParameter AsObject { get; set; }

    private readonly List<string> _watched = [];

    /// <inheritdoc/>
    protected override void ProcessRecord() => _watched.AddRange(VM?.Select(v => v.ToString()) ?? ["*"]);

    /// <inheritdoc/>
    protected override void EndProcessing()
    {
        KvmHost[] hosts = Hosts(KvmHost);
        if (hosts.Length == 0)
        {
            return;
        }

        // Objects when something is done with them: the last command of a line on a terminal draws.
        bool draw = !AsObject && !Console.IsOutputRedirected && MyInvocation.PipelinePosition == MyInvocation.PipelineLength
            && Host.UI is { SupportsVirtualTerminal: true };
        WildcardPattern[] patterns = [.. _watched.Select(n => new WildcardPattern(n, WildcardOptions.IgnoreCase))];
        var sampler = new PagingSampler(name => patterns.Any(p => p.IsMatch(name)));
        HashSet<string> met = [];
        bool complete = true;
        Look(hosts, sampler, met, () => complete = false);
        foreach (string name in _watched.Where(n => complete && !WildcardPattern.ContainsWildcardCharacters(n) && !met.Contains(n, StringComparer.OrdinalIgnoreCase)))
        {
            WriteError(Errors.Record(Failure.MigrationNotFound($"of a VM '{name}'"), name));
        }

        if (met.Count == 0 && !_watched.Any(WildcardPattern.ContainsWildcardCharacters))
        {
            return;
        }

        if (draw)
        {
            Host.UI.Write(EnterScreen);
        }

        try
        {
            for (int i = 0; (Count == 0 || i < Count) && Pause(TimeSpan.FromSeconds(Interval)); i++)
            {
                VmRemotePagingSample[] samples = Look(hosts, sampler);
                if (draw)
                {
                    Host.UI.Write(Picture(samples));
                }
                else
                {
                    WriteObject(samples, enumerateCollection: true);
                }
            }
        }
        finally
        {
            if (draw)
            {
                Host.UI.Write(LeaveScreen);
            }
        }
    }

    private VmRemotePagingSample[] Look(KvmHost[] hosts, PagingSampler sampler, HashSet<string>? met = null, Action? failed = null)
    {
        var samples = new List<VmRemotePagingSample>();
        ForHosts(
            hosts,
            (host, stop) => host.Connection.ListWorkersAsync(stop),
            (host, workers) => samples.AddRange(sampler.Take(host, workers, met)),
            failed);
        return [.. samples];
    }

    private static string Picture(VmRemotePagingSample[] samples)
    {
        const int barWidth = 40;
        var text = new StringBuilder(Home);
        void Line(string line) => text.Append(line).Append(ClearLine).Append("\r\n");
        Line($"Remote paging at {DateTime.Now:HH:mm:ss}; Ctrl+C ends.");
        Line("");
        if (samples.Length == 0)
        {
            Line("No split VM runs on these hosts.");
        }

        foreach (VmRemotePagingSample sample in samples)
        {
            double whole = Math.Max(1, (double)sample.ResidentBytes + sample.RemoteBytes + sample.UnusedBytes);
            int resident = (int)Math.Round(barWidth * sample.ResidentBytes / whole);
            int remote = Math.Min(barWidth - resident, (int)Math.Round(barWidth * sample.RemoteBytes / whole));
            Line($"{sample.VM} ({sample.State})");
            Line($"  [{new string('#', resident)}{new string('=', remote)}{new string('.', barWidth - resident - remote)}]  "
                + $"# resident {Display.Bytes(sample.ResidentBytes)}  = remote {Display.Bytes(sample.RemoteBytes)}  . unused {Display.Bytes(sample.UnusedBytes)}");
            Line($"  in {sample.PageInsPerSecond,9:N0} pages/s ({Display.Bytes(sample.BytesInPerSecond)}/s)   out {sample.PageOutsPerSecond,9:N0} pages/s "
                + $"({Display.Bytes(sample.BytesOutPerSecond)}/s)   fresh {sample.UnusedFaultsPerSecond,9:N0} pages/s");
            Line($"  the guest waits {sample.RemoteFaultMedianMicroseconds:N0} µs (99 %: {sample.RemoteFaultP99Microseconds:N0} µs) for a remote page; errors: {sample.Errors}");
            Line("");
        }

        return text.Append(ClearRest).ToString();
    }
}
