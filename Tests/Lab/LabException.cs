namespace FCtrans.Lab;

/// <summary>The lab could not do what it was asked to; the message says why and, where one is known, the remedy.</summary>
public sealed class LabException : Exception
{
    /// <summary>Makes one with its message.</summary>
    public LabException(string message) : base(message) { }

    /// <summary>Makes one with its message and cause.</summary>
    public LabException(string message, Exception cause) : base(message, cause) { }
}
