using System.Globalization;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>A size as a parameter takes it: bytes, a text such as <c>8GB</c>, or a share of the guest's memory (<c>25%</c>).</summary>
public sealed class MemorySize
{
    private static readonly (string Suffix, double Factor)[] s_units =
    [
        ("KiB", 1024), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1L << 40),
        ("KB", 1024), ("MB", 1 << 20), ("GB", 1 << 30), ("TB", 1L << 40),
        ("K", 1024), ("M", 1 << 20), ("G", 1 << 30), ("T", 1L << 40), ("B", 1),
    ];

    private readonly string _text;

    /// <summary>A text, understood when it is used.</summary>
    public MemorySize(string text) => _text = text.Trim();

    /// <summary>Bytes.</summary>
    public MemorySize(long bytes)
        : this(bytes.ToString(CultureInfo.InvariantCulture))
    {
    }

    /// <summary>Bytes.</summary>
    public MemorySize(int bytes)
        : this((long)bytes)
    {
    }

    /// <summary>Bytes.</summary>
    public MemorySize(ulong bytes)
        : this(bytes.ToString(CultureInfo.InvariantCulture))
    {
    }

    /// <summary>Bytes, as 1.5GB comes out of PowerShell.</summary>
    public MemorySize(double bytes)
        : this(bytes.ToString("R", CultureInfo.InvariantCulture))
    {
    }

    /// <inheritdoc/>
    public override string ToString() => _text;

    /// <summary>Bytes, rounded down. PowerShell's KB, MB, … are binary here as there.</summary>
    /// <exception cref="FCtransException">MainMemoryInvalid.</exception>
    internal ulong ToBytes(ulong guestBytes)
    {
        if (_text.EndsWith('%'))
        {
            double share = ParseNumber(_text[..^1]) ?? throw NoSize();
            return share is > 0 and <= 100
                ? (ulong)(guestBytes * (share / 100))
                : throw Failure.MainMemoryInvalid(_text, "a share lies between 0 and 100 percent");
        }

        return (ParseBytes(_text) ?? throw NoSize()) is var bytes and > 0 and < 1L << 60
            ? (ulong)bytes
            : throw Failure.MainMemoryInvalid(_text, "that is no size that a host could have");
    }

    /// <summary>Bytes, not rounded, of a text with or without a unit; null: it is no size.</summary>
    internal static double? ParseBytes(string text)
    {
        text = text.Trim();
        (string suffix, double factor) = Array.Find(s_units, u => text.EndsWith(u.Suffix, StringComparison.OrdinalIgnoreCase));
        return ParseNumber(text[..^(suffix ?? "").Length]) * (suffix is null ? 1 : factor);
    }

    private static double? ParseNumber(string digits) =>
        double.TryParse(
            digits, NumberStyles.Float & ~NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out double value)
        && double.IsFinite(value)
            ? value
            : null;

    private FCtransException NoSize() => Failure.MainMemoryInvalid(_text, "that is not a size");
}
