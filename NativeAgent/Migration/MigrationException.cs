namespace FCtrans.Agent.Migration;

/// <summary>A migration can't go on. The message tells the user why and what helps; the VM's state is told apart.</summary>
internal sealed class MigrationException : Exception
{
    public MigrationException(string message)
        : base(message)
    {
    }

    public MigrationException(string message, Exception cause)
        : base(message, cause)
    {
    }
}
