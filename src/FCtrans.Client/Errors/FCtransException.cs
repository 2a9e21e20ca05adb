namespace FCtrans.Client;

/// <summary>
/// A failure that the user is told of: what happened, what it is about, and what to do. Made by <see cref="Failure"/> only,
/// so that the id and the text cannot drift apart.
/// </summary>
public sealed class FCtransException : Exception
{
    internal FCtransException(
        string errorId, FailureKind kind, string what, string remedy, object? target, Exception? inner)
        : base(remedy.Length == 0 ? what : what + " " + remedy, inner)
    {
        ErrorId = errorId;
        Kind = kind;
        Remedy = remedy;
        Target = target;
    }

    /// <summary>The stable name of the error, for scripts: the name of the method of <see cref="Failure"/> that made it.</summary>
    public string ErrorId { get; }

    /// <summary>The sort of failure.</summary>
    public FailureKind Kind { get; }

    /// <summary>What the user can do about it; part of the message too. Empty when there is nothing to say.</summary>
    public string Remedy { get; }

    /// <summary>What the failure is about: a host's or a VM's name. May be null.</summary>
    public object? Target { get; }
}
