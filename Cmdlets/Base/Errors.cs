using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>Failures as PowerShell's error records.</summary>
internal static class Errors
{
    /// <summary>The message has the remedy in it, so that every view shows it.</summary>
    public static ErrorRecord Record(FCtransException e, object? target) =>
        new(e, e.ErrorId, Category(e.Kind), target ?? e.Target);

    private static ErrorCategory Category(FailureKind kind) => kind switch
    {
        FailureKind.InvalidArgument => ErrorCategory.InvalidArgument,
        FailureKind.NotFound => ErrorCategory.ObjectNotFound,
        FailureKind.InvalidState => ErrorCategory.InvalidOperation,
        FailureKind.Connection => ErrorCategory.ConnectionError,
        FailureKind.Security => ErrorCategory.SecurityError,
        FailureKind.ResourceUnavailable => ErrorCategory.ResourceUnavailable,
        FailureKind.NotSupported => ErrorCategory.NotImplemented,
        FailureKind.Timeout => ErrorCategory.OperationTimeout,
        _ => ErrorCategory.NotSpecified,
    };
}
