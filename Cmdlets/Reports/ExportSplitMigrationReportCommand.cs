using System.Management.Automation;
using System.Text;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Export-SplitMigrationReport: writes a page about a split migration and the life after it.</summary>
[Cmdlet(VerbsData.Export, "SplitMigrationReport", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Low, DefaultParameterSetName = "VM")]
[OutputType(typeof(void), typeof(FileInfo))]
public sealed class ExportSplitMigrationReportCommand : FCtransCmdlet
{
    /// <summary>The migration, from Get-SplitMigration or Start-SplitMigration.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "Migration", ValueFromPipeline = true)]
    [ValidateNotNull]
    public SplitMigration Migration { get; set; } = null!;

    /// <summary>The VM, or its name: its newest migration is meant.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = "VM")]
    [ArgumentCompleter(typeof(KvmVmCompleter))]
    [Alias("Name")]
    [ValidateNotNull]
    public VmReference VM { get; set; } = null!;

    /// <summary>The file to write. One that is there is replaced.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>Write the file's object.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        string wanted = ParameterSetName == "VM" ? VM.ToString() : Migration.SplitId;
        ForItem(wanted, () =>
        {
            string path = SessionState.Path.GetUnresolvedProviderPathFromPSPath(Path);
            (KvmHost Host, WorkerSummary Worker)[] workers = Await(FindWorkersAsync);
            SplitMigration migration = ParameterSetName == "Migration" ? Migration
                : SplitMigrationCatalog.From(workers).LastOrDefault(m => m.VM == wanted) ?? throw Failure.MigrationNotFound($"of a VM '{wanted}'");
            (KvmHost Host, WorkerSummary Worker) main = workers.FirstOrDefault(w =>
                w.Worker.Spec.SplitId == migration.SplitId && w.Worker.Spec.Role == WorkerRole.Main && w.Worker.Status?.Paging is not null);
            VmRemotePaging? paging = main.Worker is null || migration.State != "Completed"
                ? null : new VmRemotePaging(main.Host, main.Worker.Spec, main.Worker.Status.Paging, main.Worker.Running);
            if (!ShouldProcess(path, $"Write the report of the split migration of {migration.VM}"))
            {
                return;
            }

            try
            {
                File.WriteAllText(path, HtmlReport.Make(migration, paging, DateTimeOffset.Now), new UTF8Encoding(false));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
            {
                throw Failure.ReportUnwritable(path, e.Message, e);
            }

            if (PassThru)
            {
                WriteObject(new FileInfo(path));
            }
        });
    }

    /// <summary>What the connected hosts know; a host that does not answer has nothing to say here.</summary>
    private static async Task<(KvmHost, WorkerSummary)[]> FindWorkersAsync(CancellationToken stop)
    {
        async Task<IEnumerable<(KvmHost, WorkerSummary)>> AskAsync(KvmHost host)
        {
            try
            {
                return (await host.Connection.ListWorkersAsync(stop).ConfigureAwait(false)).Where(w => w.Spec is not null).Select(w => (host, w));
            }
            catch (FCtransException)
            {
                return [];
            }
        }

        return [.. (await Task.WhenAll(HostRegistry.All.Select(AskAsync)).ConfigureAwait(false)).SelectMany(w => w)];
    }
}
