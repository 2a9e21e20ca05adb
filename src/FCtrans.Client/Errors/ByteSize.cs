using System.Globalization;

namespace FCtrans.Client;

/// <summary>Sizes for people, in binary units: <c>1.5 GiB</c>.</summary>
public static class ByteSize
{
    private static readonly string[] s_units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

    /// <summary>At most one digit after the point, none for whole numbers.</summary>
    public static string Text(ulong bytes)
    {
        double value = bytes;
        int unit = 0;
        while (value >= 1024 && unit < s_units.Length - 1)
        {
            value /= 1024;
            unit++;
        }

        return value.ToString(unit == 0 ? "0" : "0.#", CultureInfo.InvariantCulture) + " " + s_units[unit];
    }
}
