using System.Globalization;

namespace FCtrans.Lab;

/// <summary>What the guest's oracle answered to one command: its key=value pairs, in order.</summary>
public sealed class OracleAnswer
{
    private OracleAnswer(string text, IReadOnlyDictionary<string, string> values) => (Text, Values) = (text, values);

    /// <summary>The answer as it came, without the leading "ok".</summary>
    public string Text { get; }

    /// <summary>The values by key, percent-encoding undone.</summary>
    public IReadOnlyDictionary<string, string> Values { get; }

    /// <summary>A number by its key.</summary>
    /// <exception cref="LabException">There is no such key, or it is no whole number.</exception>
    public long this[string key] =>
        Values.TryGetValue(key, out string? text) && long.TryParse(text, NumberStyles.Integer, CultureInfo.InvariantCulture, out long value)
            ? value
            : throw new LabException($"The oracle's answer has no number '{key}': {Text}");

    /// <summary>Takes an answer line, without its identifier, apart.</summary>
    /// <exception cref="LabException">The oracle answered with an error, or with something else than it should.</exception>
    public static OracleAnswer Parse(string command, string line)
    {
        if (line.StartsWith("error ", StringComparison.Ordinal))
        {
            throw new LabException($"The guest refused '{command}': {line[6..]}");
        }

        if (line != "ok" && !line.StartsWith("ok ", StringComparison.Ordinal))
        {
            throw new LabException($"The guest answered '{command}' with '{line}'.");
        }

        var values = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (string pair in line[2..].Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            int equals = pair.IndexOf('=', StringComparison.Ordinal);
            if (equals > 0)
            {
                values[pair[..equals]] = Uri.UnescapeDataString(pair[(equals + 1)..]);
            }
        }

        return new OracleAnswer(line[2..].Trim(), values);
    }

    /// <inheritdoc/>
    public override string ToString() => Text;
}
