using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>Failures as PowerShell's error records.</summary>
internal static class Errors
{
    public static ErrorRecord Record(FCtransException e, object? target) => new(e, e.ErrorId, Category(e.Kind), target ?? e.Target)
    {
        ErrorDetails = new ErrorDetails(e.Message) { RecommendedAction = e.Remedy },
    };

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
