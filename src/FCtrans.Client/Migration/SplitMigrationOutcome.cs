using FCtrans.Contracts;

namespace FCtrans.Client;

/// <summary>What became of a split migration that ended well.</summary>
/// <param name="SplitId">The split VM's id: 32 hexadecimal digits.</param>
/// <param name="Plan">What was done.</param>
/// <param name="SourceSpec">What the source's worker was told.</param>
/// <param name="Migration">The source worker's last figures.</param>
public sealed record SplitMigrationOutcome(string SplitId, SplitMigrationPlan Plan, WorkerSpec SourceSpec, MigrationStatus Migration);

/// <summary>A step of a split migration, for showing.</summary>
/// <param name="Step">In words: <c>starting the sub-hosts</c>.</param>
/// <param name="Status">The source worker's figures; null before it runs.</param>
public sealed record SplitMigrationProgress(string Step, MigrationStatus? Status);
