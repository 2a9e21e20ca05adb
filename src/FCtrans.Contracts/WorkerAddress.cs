namespace FCtrans.Contracts;

/// <summary>How a call to the agent says which worker on that host it is for.</summary>
public static class WorkerAddress
{
    /// <summary>The call's metadata key.</summary>
    public const string MetadataKey = "fctrans-worker";

    /// <summary>The value: the split id, a slash, and the role in small letters.</summary>
    /// <exception cref="ArgumentException">The split id is none, or the role is not specified.</exception>
    public static string Of(string splitId, WorkerRole role)
    {
        if (splitId.Length is 0 or > 64 || !splitId.All(char.IsAsciiHexDigit))
        {
            throw new ArgumentException("A split id is hexadecimal.", nameof(splitId));
        }

        return role is WorkerRole.Unspecified
            ? throw new ArgumentException("A worker has a role.", nameof(role))
            : $"{splitId}/{role.ToString().ToLowerInvariant()}";
    }
}
