using FCtrans.Contracts;

namespace FCtrans;

/// <summary>One thing that FCtrans needs of a host.</summary>
public sealed class KvmHostCapability
{
    internal KvmHostCapability(HostCapability capability)
    {
        Name = capability.Name;
        IsAvailable = capability.Available;
        Detail = capability.Detail;
        Remedy = capability.Remedy;
    }

    /// <summary>Its name: userfaultfd, pagemap-scan, ….</summary>
    public string Name { get; }

    /// <summary>Whether the host has it.</summary>
    public bool IsAvailable { get; }

    /// <summary>What was seen.</summary>
    public string Detail { get; }

    /// <summary>What to do when it is not available.</summary>
    public string Remedy { get; }

    /// <inheritdoc/>
    public override string ToString() => IsAvailable ? Name : $"{Name} (missing)";
}
