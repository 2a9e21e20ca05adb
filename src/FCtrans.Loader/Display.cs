using System.Globalization;

namespace FCtrans.Loader;

/// <summary>
/// Figures for people, in the module's table views. Here because a view's script finds types of the default load context only.
/// </summary>
public static class Display
{
    private static readonly string[] s_units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

    /// <summary>A size in binary units, at most one digit after the point: <c>1.5 GiB</c>.</summary>
    public static string Bytes(double bytes)
    {
        int unit = 0;
        while (bytes >= 1024 && unit < s_units.Length - 1)
        {
            bytes /= 1024;
            unit++;
        }

        return bytes.ToString(unit == 0 ? "0" : "0.#", CultureInfo.CurrentCulture) + " " + s_units[unit];
    }

    /// <summary>A duration given in seconds: <c>235 ms</c>, <c>4.2 s</c>, <c>3:07</c>, <c>1:02:03</c>.</summary>
    public static string Seconds(double seconds) => seconds switch
    {
        < 1 => (seconds * 1000).ToString("0", CultureInfo.CurrentCulture) + " ms",
        < 60 => seconds.ToString("0.0", CultureInfo.CurrentCulture) + " s",
        < 3600 => TimeSpan.FromSeconds(seconds).ToString(@"m\:ss", CultureInfo.InvariantCulture),
        _ => ((int)(seconds / 3600)).ToString(CultureInfo.InvariantCulture)
            + TimeSpan.FromSeconds(seconds).ToString(@"\:mm\:ss", CultureInfo.InvariantCulture),
    };

    /// <summary>A short duration given in microseconds: <c>85 µs</c>, <c>1.2 ms</c>; from a second on as <see cref="Seconds"/>.</summary>
    public static string Microseconds(double microseconds) => microseconds switch
    {
        < 1000 => microseconds.ToString("0", CultureInfo.CurrentCulture) + " µs",
        < 1_000_000 => (microseconds / 1000).ToString("0.#", CultureInfo.CurrentCulture) + " ms",
        _ => Seconds(microseconds / 1_000_000),
    };

    /// <summary>A share of a whole, in percent; a dash when there is no whole.</summary>
    public static string Share(double part, double whole) =>
        whole <= 0 ? "-" : (100 * part / whole).ToString("0", CultureInfo.CurrentCulture) + "%";
}
