using System.Globalization;

namespace FCtrans.Agent.Hypervisor;

/// <summary>Sizes as QEMU writes them: <c>4G</c>, <c>1.5g</c>, <c>0x1000</c>, <c>512</c>.</summary>
internal static class ByteSize
{
    /// <param name="unitBytes">What a number without a suffix counts: 1 for an object's property, 1 MiB for <c>-m</c>.</param>
    /// <returns>0 when it is not a size, or none that a VM can have (more than 2^56 bytes).</returns>
    public static long Parse(string? text, long unitBytes = 1)
    {
        if (string.IsNullOrEmpty(text))
        {
            return 0;
        }

        if (text.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
        {
            return long.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out long hex)
                ? Bounded((double)hex * unitBytes)
                : 0;
        }

        int shift = char.ToUpperInvariant(text[^1]) switch
        {
            'B' => 0,
            'K' => 10,
            'M' => 20,
            'G' => 30,
            'T' => 40,
            'P' => 50,
            _ => -1,
        };
        var number = shift < 0 ? text.AsSpan() : text.AsSpan(0, text.Length - 1);
        if (!decimal.TryParse(number, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out decimal value)
            || value > 1L << 56)
        {
            return 0;
        }

        return Bounded((double)value * (shift < 0 ? unitBytes : 1L << shift));
    }

    private static long Bounded(double bytes) => bytes is >= 0 and <= 1L << 56 ? (long)bytes : 0;
}
