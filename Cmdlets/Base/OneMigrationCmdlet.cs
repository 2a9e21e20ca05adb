using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>What cmdlets share that are told one migration: by its object, its id, or its VM.</summary>
public abstract class OneMigrationCmdlet : FCtransCmdlet
{
    private protected const string VMSet = "VM";
    private const string MigrationSet = "Migration";
    private const string IdSet = "Id";

    /// <summary>The migration, from Get-SplitMigration.</summary>
    [Parameter(Mandatory = true, ParameterSetName = MigrationSet, ValueFromPipeline = true)]
    [ValidateNotNull]
    public SplitMigration Migration { get; set; } = null!;

    /// <summary>The migration's id.</summary>
    [Parameter(Mandatory = true, ParameterSetName = IdSet)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(SplitIdCompleter))]
    public string SplitId { get; set; } = "";

    /// <summary>The VM, or its name; its newest migration is meant.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = VMSet, ValueFromPipeline = true)]
    [Alias("Name")]
    [ValidateNotNull]
    [ArgumentCompleter(typeof(KvmVmCompleter))]
    public VmReference VM { get; set; } = null!;

    /// <summary>The id of the migration that is meant; null: the newest of <see cref="VM"/>.</summary>
    private protected string? WantedId => ParameterSetName switch { MigrationSet => Migration.SplitId, IdSet => SplitId, _ => null };
}
