namespace FCtrans.Client;

/// <summary>What sort of failure it is; the cmdlets turn it into a PowerShell error category.</summary>
public enum FailureKind
{
    /// <summary>What the user asked for makes no sense.</summary>
    InvalidArgument,

    /// <summary>What the user named is not there.</summary>
    NotFound,

    /// <summary>It is there, but not in a state that allows the action.</summary>
    InvalidState,

    /// <summary>No connection, or a connection that broke.</summary>
    Connection,

    /// <summary>The host refused us, or we refused the host.</summary>
    Security,

    /// <summary>A host lacks memory.</summary>
    ResourceUnavailable,

    /// <summary>A host lacks a facility.</summary>
    NotSupported,

    /// <summary>It took longer than allowed.</summary>
    Timeout,

    /// <summary>The action began and failed.</summary>
    OperationFailed,
}
