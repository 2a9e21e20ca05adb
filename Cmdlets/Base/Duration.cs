using System.Globalization;
using System.Text.RegularExpressions;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>
/// A span of time as parameters take it. PowerShell by itself would take 60 for 60 ticks of 100 ns, and '60' for 60 days: here a plain
/// number is seconds, always.
/// </summary>
internal static partial class Duration
{
    /// <summary>What is shorter was meant otherwise: a span in ticks, or in another unit.</summary>
    private static readonly TimeSpan s_shortest = TimeSpan.FromMilliseconds(1);

    /// <summary>A number of seconds, a text with a unit (<c>100ms</c>, <c>30s</c>, <c>5m</c>, <c>1h</c>, <c>2d</c>), or <c>[d.]h:m[:s]</c>; null: none of these.</summary>
    public static TimeSpan? Of(object value) => value switch
    {
        TimeSpan span => span,
        string text => OfText(text),
        sbyte or byte or short or ushort or int or uint or long or ulong or float or double or decimal
            => OfSeconds(Convert.ToDouble(value, CultureInfo.InvariantCulture)),
        _ => null,
    };

    /// <summary>It is one that somebody could mean.</summary>
    /// <param name="parameter">What it was given for.</param>
    /// <param name="value">Null: it was not given.</param>
    /// <exception cref="FCtransException">DurationInvalid.</exception>
    public static void Check(string parameter, TimeSpan? value)
    {
        if (value < s_shortest)
        {
            throw Failure.DurationInvalid(parameter, value.Value);
        }
    }

    private static TimeSpan? OfText(string text)
    {
        if (text.Contains(':', StringComparison.Ordinal))
        {
            return TimeSpan.TryParse(text, CultureInfo.InvariantCulture, out TimeSpan span) ? span : null;
        }

        Match match = NumberAndUnit().Match(text);
        return match.Success && double.TryParse(match.Groups["number"].ValueSpan, NumberStyles.Float, CultureInfo.InvariantCulture, out double number)
            ? OfSeconds(number * match.Groups["unit"].Value.ToLowerInvariant() switch
            {
                "ms" => 0.001,
                "m" or "min" => 60,
                "h" => 3600,
                "d" => 86400,
                _ => 1,
            })
            : null;
    }

    private static TimeSpan? OfSeconds(double seconds) =>
        Math.Abs(seconds) < TimeSpan.MaxValue.TotalSeconds ? TimeSpan.FromSeconds(seconds) : null;

    [GeneratedRegex(@"^\s*(?<number>[+-]?(\d+(\.\d*)?|\.\d+))\s*(?<unit>ms|s|m|min|h|d)?\s*$", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex NumberAndUnit();
}
