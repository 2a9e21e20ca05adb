using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>What cmdlets share that are told migrations: by their objects, an id, or their VMs.</summary>
public abstract class MigrationCmdlet : FCtransCmdlet
{
    private protected const string VMSet = "VM";
    private protected const string MigrationSet = "Migration";
    private const string IdSet = "Id";

    /// <summary>The migration, from Get-SplitMigration.</summary>
    [Parameter(Mandatory = true, ParameterSetName = MigrationSet, ValueFromPipeline = true)]
    [ValidateNotNull]
    public SplitMigration Migration { get; set; } = null!;

    /// <summary>The migration's id. Of what comes through the pipeline it says which of a VM's migrations is meant.</summary>
    [Parameter(Mandatory = true, ParameterSetName = IdSet, ValueFromPipelineByPropertyName = true)]
    [AllowEmptyString]
    [ArgumentCompleter(typeof(SplitIdCompleter))]
    public string SplitId { get; set; } = "";

    /// <summary>VMs, or names of VMs, with wildcards, or hosts: all VMs that they move; of each the newest migration is meant.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = VMSet, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Parameter(ParameterSetName = IdSet, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Name")]
    [ValidateNotNull]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(KvmVmCompleter))]
    public VmReference[] VM { get; set; } = [];

    /// <summary>
    /// Runs each migration's part, with the migration as it is now; what fails gets its error, and the next has its turn. None is no error
    /// where a name has wildcards.
    /// </summary>
    /// <param name="part">Is told too whether the VM was found by wildcards, and not named.</param>
    private protected void ForMigrations(Action<SplitMigration, bool> part)
    {
        // A VM's object has an id too, of the split that it is a part of, or none; what is meant is its newest migration all the same.
        string? id = ParameterSetName switch
        {
            MigrationSet => Migration.SplitId,
            IdSet when VM.Length == 0 || (SplitId.Length > 0 && !VM[0].IsObject) => SplitId,
            _ => null,
        };
        if (id is not null)
        {
            ForItem(id, () => part(Await(stop => SplitMigrationCatalog.FindAsync(id, stop)), false));
            return;
        }

        foreach (VmReference vm in VM)
        {
            SplitMigration[] found = [];
            ForItem(vm.ToString(), () => found = Await(stop => SplitMigrationCatalog.FindNewestAsync(vm, stop)));
            foreach (SplitMigration migration in found)
            {
                ForItem(migration.VM, () => part(migration, vm.IsPattern));
            }
        }
    }
}
