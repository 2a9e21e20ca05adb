using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>Has a parameter take spans of time as <see cref="Duration"/> understands them: 30, 0.1, '100ms', '5m', 0:30:00, or a TimeSpan.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class DurationAttribute : ArgumentTransformationAttribute
{
    /// <summary>The parameter is a number of seconds, not a TimeSpan.</summary>
    public bool InSeconds { get; set; }

    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object? inputData)
    {
        object? value = inputData is PSObject wrapped ? wrapped.BaseObject : inputData;
        if (value is null)
        {
            return null;
        }

        // A number that was written on the command line remembers how: to PowerShell 2d is the decimal 2, and 2s an Int16.
        TimeSpan span = Duration.Of($"{inputData}") ?? Duration.Of(value) ?? throw new ArgumentTransformationMetadataException(
            $"'{value}' is no span of time: give seconds (30, 0.1), a number with a unit ('100ms', '30s', '5m', '1h') or hours, minutes and seconds (0:30:00).");
        return InSeconds ? span.TotalSeconds : span;
    }
}
