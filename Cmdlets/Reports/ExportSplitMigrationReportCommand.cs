using System.Management.Automation;
using System.Text;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Export-SplitMigrationReport: writes a page about a split migration and the life after it.</summary>
[Cmdlet(VerbsData.Export, "SplitMigrationReport", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Low, DefaultParameterSetName = VMSet)]
[OutputType(typeof(void), typeof(FileInfo))]
public sealed class ExportSplitMigrationReportCommand : OneMigrationCmdlet
{
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
        string? id = WantedId;
        string wanted = id ?? VM.ToString();
        ForItem(wanted, () =>
        {
            string path = SessionState.Path.GetUnresolvedProviderPathFromPSPath(Path);
            (KvmHost Host, WorkerSummary Worker)[] workers = Await(FindWorkersAsync);
            SplitMigration migration = Migration
                ?? SplitMigrationCatalog.From(workers).LastOrDefault(m => id is null ? m.VM == wanted : string.Equals(m.SplitId, id, StringComparison.OrdinalIgnoreCase))
                ?? throw Failure.MigrationNotFound(id ?? $"of a VM '{wanted}'");
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
