using System.Management.Automation;
using System.Text;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Export-SplitMigrationReport: writes a page about a split migration and the life after it, or one about each of several.</summary>
[Cmdlet(VerbsData.Export, "SplitMigrationReport", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Low, DefaultParameterSetName = VMSet)]
[OutputType(typeof(void), typeof(FileInfo))]
public sealed class ExportSplitMigrationReportCommand : MigrationCmdlet
{
    /// <summary>The file to write; one that is there is replaced. For several migrations a folder: each has a file VM-ID.html in it then.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>Write the file's object.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    private readonly HashSet<string> _written = [];

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        if (ParameterSetName == MigrationSet)
        {
            // What it says stands, whether a host still knows of it or not.
            ForItem(Migration.SplitId, () => Export(Migration));
        }
        else
        {
            ForMigrations((migration, _) => Export(migration));
        }
    }

    private void Export(SplitMigration migration)
    {
        string path = SessionState.Path.GetUnresolvedProviderPathFromPSPath(Path);
        if (Directory.Exists(path))
        {
            path = System.IO.Path.Combine(path, FileName(migration));
        }
        else if (!_written.Add(path))
        {
            throw Failure.ReportsNeedFolder(path, migration.VM);
        }

        (KvmHost Host, WorkerSummary Worker)[] workers = Await(FindWorkersAsync);
        (KvmHost Host, WorkerSummary Worker) main = workers.FirstOrDefault(w =>
            w.Worker.Spec.SplitId == migration.SplitId && w.Worker.Spec.Role == WorkerRole.Main && w.Worker.Status?.Paging is not null);
        VmRemotePaging? paging = main.Worker is null || migration.State is not ("PostCopy" or "Completed")
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
    }

    /// <summary>The same each time for the same migration, and another for each. A VM's name may have in it what a file's may not.</summary>
    private static string FileName(SplitMigration migration)
    {
        char[] barred = ['/', '\\', ':', .. System.IO.Path.GetInvalidFileNameChars()];
        string vm = string.Concat(migration.VM.Select(c => barred.Contains(c) ? '_' : c));
        return $"{vm}-{migration.SplitId[..Math.Min(8, migration.SplitId.Length)]}.html";
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
