namespace FCtrans.Client;

/// <summary>What a short remote command did. The status is null when a signal ended it or the connection broke.</summary>
internal readonly record struct RemoteCommandResult(int? ExitStatus, string Output, string Error)
{
    public bool Succeeded => ExitStatus == 0;

    /// <summary>The best reason there is for a failure.</summary>
    public string Reason => Error.Trim() is { Length: > 0 } error ? error
        : ExitStatus is { } status ? $"it ended with status {status}" : "it did not come to an end";
}
