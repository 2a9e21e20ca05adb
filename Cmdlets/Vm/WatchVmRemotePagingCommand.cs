using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Watch-VmRemotePaging: the remote paging of split VMs, live in the terminal, or an object for each interval.</summary>
[Cmdlet(VerbsCommon.Watch, "VmRemotePaging")]
[OutputType(typeof(VmRemotePagingSample))]
public sealed class WatchVmRemotePagingCommand : FCtransCmdlet
{
    // xterm's control sequences: the other screen, which leaves this one as it was, and its cursor.
    private const string EnterScreen = "\u001b[?1049h\u001b[?25l";
    private const string LeaveScreen = "\u001b[?25h\u001b[?1049l";
    private const int UsualWidth = 80;
    private const int UsualHeight = 24;

    /// <summary>Split VMs (also as they were before their migration), or names of VMs with wildcards; or main hosts: all split VMs there. Default: all.</summary>
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
    [Duration(InSeconds = true)]
    public double Interval { get; set; } = 1;

    /// <summary>How many intervals; 0: until Ctrl+C.</summary>
    [Parameter]
    [ValidateRange(0, int.MaxValue)]
    public int Count { get; set; }

    /// <summary>Write objects though the output is a terminal.</summary>
    [Parameter]
    public SwitchParameter AsObject { get; set; }

    private readonly List<VmReference> _watched = [];

    /// <inheritdoc/>
    protected override void ProcessRecord() =>
        _watched.AddRange((VM ?? [new VmReference("*")]).Where(v => ForItem(v.ToString(), v.CheckHost)));

    /// <inheritdoc/>
    protected override void EndProcessing()
    {
        if (_watched.Count == 0 || Hosts(KvmHost, _watched) is not { Length: > 0 } hosts)
        {
            return;
        }

        // Objects when something is done with them: the last command of a line on a terminal draws.
        bool draw = !AsObject && !Console.IsOutputRedirected && MyInvocation.PipelinePosition == MyInvocation.PipelineLength
            && Host.UI is { SupportsVirtualTerminal: true };
        var sampler = new PagingSampler((host, name) => _watched.Any(v => v.Matches(host, name)));
        HashSet<string> met = [];
        bool complete = true;
        List<(VmRemotePaging Now, VmRemotePagingSample? Since)> seen = Look(hosts, sampler, met, () => complete = false);
        foreach (VmReference vm in _watched.Where(v => complete && !v.IsPattern && !met.Contains(v.ToString(), StringComparer.OrdinalIgnoreCase)))
        {
            WriteError(Errors.Record(Failure.MigrationNotFound($"of a VM '{vm}'"), vm.ToString()));
        }

        if (met.Count == 0 && !_watched.Any(v => v.IsPattern))
        {
            return;
        }

        if (draw)
        {
            Host.UI.Write(EnterScreen);
        }

        try
        {
            if (draw)
            {
                Draw(seen);
            }

            for (int i = 0; (Count == 0 || i < Count) && Pause(TimeSpan.FromSeconds(Interval)); i++)
            {
                seen = Look(hosts, sampler);
                if (draw)
                {
                    Draw(seen);
                }
                else
                {
                    WriteObject(seen.Select(s => s.Since).OfType<VmRemotePagingSample>().ToArray(), enumerateCollection: true);
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

    private List<(VmRemotePaging Now, VmRemotePagingSample? Since)> Look(KvmHost[] hosts, PagingSampler sampler, HashSet<string>? met = null, Action? failed = null)
    {
        var seen = new List<(VmRemotePaging, VmRemotePagingSample?)>();
        ForHosts(
            hosts,
            (host, stop) => host.Connection.ListWorkersAsync(stop),
            (host, workers) => seen.AddRange(sampler.Take(host, workers, met)),
            failed);
        return seen;
    }

    /// <summary>The window may have become another since the last time.</summary>
    private void Draw(List<(VmRemotePaging Now, VmRemotePagingSample? Since)> seen)
    {
        (int width, int height) = TerminalWindow.SizeOf(Host) ?? (UsualWidth, UsualHeight);
        Host.UI.Write(PagingScreen.Draw(seen, DateTime.Now, width, height));
    }
}
