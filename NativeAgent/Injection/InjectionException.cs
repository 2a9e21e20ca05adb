namespace FCtrans.Agent.Injection;

/// <summary>A system call could not be run inside another process. The process is as it was, unless the text says that it ended.</summary>
internal sealed class InjectionException(string reason, string remedy, Exception? cause = null)
    : Exception(remedy.Length == 0 ? reason : $"{reason} {remedy}", cause)
{
    public string Reason { get; } = reason;

    public string Remedy { get; } = remedy;
}
