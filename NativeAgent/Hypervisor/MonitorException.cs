namespace FCtrans.Agent.Hypervisor;

/// <summary>QEMU's monitor refused a command, said what makes no sense, or did not answer.</summary>
/// <param name="errorClass">QEMU's own (<c>GenericError</c>, <c>CommandNotFound</c>, …), or <c>Timeout</c>, <c>Closed</c>, <c>Protocol</c>, <c>Unreachable</c>.</param>
internal sealed class MonitorException(string errorClass, string description, Exception? cause = null)
    : IOException(description, cause)
{
    public const string Timeout = "Timeout";
    public const string Closed = "Closed";
    public const string Protocol = "Protocol";
    public const string Unreachable = "Unreachable";

    public string ErrorClass { get; } = errorClass;
}
