namespace FCtrans.Contracts;

/// <summary>What the states of a migration have in common.</summary>
public static class MigrationStates
{
    /// <summary>Nothing more happens to a migration in this state: it ended, well or badly.</summary>
    public static bool HasEnded(this MigrationState state) =>
        state is MigrationState.Completed or MigrationState.Failed or MigrationState.Aborted;
}
