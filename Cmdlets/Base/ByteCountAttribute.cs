using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>Has a parameter that is a number of bytes take texts with a unit too: '32GiB', as <see cref="MemorySize"/> does.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class ByteCountAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object? inputData) =>
        (inputData is PSObject wrapped ? wrapped.BaseObject : inputData) is string text
            ? MemorySize.ParseBytes(text) is { } bytes and < long.MaxValue
                ? (long)bytes
                : throw new ArgumentTransformationMetadataException($"'{text}' is no size: give bytes (34359738368), 32GB, or '32GiB'.")
            : inputData;
}
