using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Stop-SplitMigration: gives a running migration up; the VM runs on where it is. Too late after the commitment.</summary>
[Cmdlet(VerbsLifecycle.Stop, "SplitMigration", DefaultParameterSetName = VMSet, SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(void), typeof(SplitMigration))]
public sealed class StopSplitMigrationCommand : MigrationCmdlet
{
    /// <summary>Write the migration's last state.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        ForMigrations((migration, wildcard) =>
        {
            if (migration.HasEnded)
            {
                if (wildcard)
                {
                    return;
                }

                throw migration.State == "Completed"
                    ? Failure.MigrationCommitted(migration.VM) : Failure.MigrationEnded(migration.VM, migration.State);
            }

            if (migration.Source is not { } source)
            {
                throw Failure.HostNotConnected(migration.SourceHost);
            }

            if (!ShouldProcess(migration.VM, $"Stop the split migration to {migration.MainHost}"))
            {
                return;
            }

            WorkerStatus status = Await(async stop =>
            {
                WorkerConnection worker = source.Connection.ConnectWorker(
                    migration.SplitId, WorkerRole.Source, migration.VM);
                return await worker.AbortAsync("the user stopped it", stop).ConfigureAwait(false);
            });
            RemoveWorkers(migration);
            if (PassThru)
            {
                WriteObject(new SplitMigration(
                    new WorkerSpec
                    {
                        SplitId = migration.SplitId,
                        VmName = migration.VM,
                        TrackUnused = migration.TrackUnused,
                        StartedUnixMilliseconds = new DateTimeOffset(migration.Started).ToUnixTimeMilliseconds(),
                    },
                    status.Migration, source, source.Name, migration.MainHost, migration.SubHosts, migration.MainMemoryBytes));
            }
        });
    }

    /// <summary>
    /// Whoever started it removes the workers too, if it still watches: what is gone already is no error, and a host refuses
    /// as long as a VM needs the worker.
    /// </summary>
    private void RemoveWorkers(SplitMigration migration)
    {
        foreach (string name in migration.SubHosts.Prepend(migration.MainHost))
        {
            if (HostRegistry.Find(name) is not { } host)
            {
                WriteWarning($"{name} is not connected: a worker of the stopped migration stays there until it is removed.");
                continue;
            }

            WorkerRole role = name == migration.MainHost ? WorkerRole.Main : WorkerRole.Sub;
            try
            {
                Await(async stop =>
                {
                    await host.Connection.RemoveWorkerAsync(migration.SplitId, role, force: false, stop).ConfigureAwait(false);
                    return true;
                });
            }
            catch (FCtransException e) when (e.Kind == FailureKind.NotFound)
            {
            }
            catch (FCtransException e)
            {
                WriteWarning($"{name}: {e.Message}");
            }
        }
    }
}
