using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace FCtrans.Agent.Hypervisor;

/// <summary>
/// The value of a QEMU option such as <c>socket,id=mon,path=/run/a,,b,server=on</c>: pairs in their order, a comma doubled
/// where it belongs to a value, the first value without a key where the option has an implied one. A key alone means
/// <c>on</c>; <c>nokey</c> alone means <c>off</c> in QEMU before 6.0, and is kept as a key of that name.
/// Also read from the JSON form that QEMU takes for <c>-object</c>, <c>-device</c>, <c>-blockdev</c> and <c>-netdev</c>:
/// nested members get names such as <c>a.b</c>.
/// </summary>
internal sealed class KeyValueList
{
    private const int MaximumDepth = 16;

    private readonly List<KeyValuePair<string, string>> _pairs = [];

    public IReadOnlyList<KeyValuePair<string, string>> Pairs => _pairs;

    /// <summary>The last value given to <paramref name="key"/>, as QEMU takes it; null if there is none.</summary>
    public string? this[string key]
    {
        get
        {
            for (int i = _pairs.Count - 1; i >= 0; i--)
            {
                if (_pairs[i].Key == key)
                {
                    return _pairs[i].Value;
                }
            }

            return null;
        }
    }

    /// <summary>Whether <paramref name="key"/> is on; <paramref name="otherwise"/> where it is not given.</summary>
    public bool IsOn(string key, bool otherwise = false) => this[key] switch
    {
        null => otherwise,
        "on" or "yes" or "true" or "y" => true,
        _ => false,
    };

    public static KeyValueList Parse(string text, string? impliedKey = null)
        => text.StartsWith('{') ? ParseJson(text) : ParsePairs(text, impliedKey);

    public void Set(string key, string value)
    {
        int at = _pairs.FindIndex(pair => pair.Key == key);
        _pairs.RemoveAll(pair => pair.Key == key);
        _pairs.Insert(at < 0 ? _pairs.Count : Math.Min(at, _pairs.Count), new(key, value));
    }

    public void Remove(string key) => _pairs.RemoveAll(pair => pair.Key == key);

    /// <summary>Back to QEMU's form.</summary>
    /// <param name="impliedKey">The key that is left out when it comes first.</param>
    public string Format(string? impliedKey = null)
    {
        var text = new StringBuilder();
        for (int i = 0; i < _pairs.Count; i++)
        {
            var (key, value) = _pairs[i];
            if (i > 0)
            {
                text.Append(',');
            }

            if (i > 0 || key != impliedKey)
            {
                text.Append(key).Append('=');
            }

            text.Append(value.Replace(",", ",,", StringComparison.Ordinal));
        }

        return text.ToString();
    }

    private static KeyValueList ParsePairs(string text, string? impliedKey)
    {
        var list = new KeyValueList();
        int at = 0;
        bool first = true;
        while (at < text.Length || first)
        {
            string part = NextPart(text, ref at, out int equals);
            if (equals >= 0)
            {
                list._pairs.Add(new(part[..equals], part[(equals + 1)..]));
            }
            else if (first && impliedKey is not null)
            {
                list._pairs.Add(new(impliedKey, part));
            }
            else if (part.Length > 0)
            {
                list._pairs.Add(new(part, "on"));
            }

            first = false;
        }

        return list;
    }

    /// <summary>The text up to the next single comma, doubled commas made one; where its first <c>=</c> is, -1 if there is none.</summary>
    private static string NextPart(string text, ref int at, out int equals)
    {
        var part = new StringBuilder();
        equals = -1;
        while (at < text.Length)
        {
            char c = text[at++];
            if (c == ',')
            {
                if (at >= text.Length || text[at] != ',')
                {
                    break;
                }

                at++;
            }
            else if (c == '=' && equals < 0)
            {
                equals = part.Length;
            }

            part.Append(c);
        }

        return part.ToString();
    }

    private static KeyValueList ParseJson(string text)
    {
        var list = new KeyValueList();
        try
        {
            var root = JsonNode.Parse(text, documentOptions: new JsonDocumentOptions { MaxDepth = MaximumDepth, AllowDuplicateProperties = false });
            if (root is JsonObject members)
            {
                list.AddMembers("", members);
            }
        }
        catch (JsonException)
        {
            // Another process's command line may hold anything: what can't be read has no members.
        }

        return list;
    }

    private void AddMembers(string prefix, JsonObject members)
    {
        foreach (var (name, value) in members)
        {
            switch (value)
            {
                case JsonObject nested:
                    AddMembers(prefix + name + ".", nested);
                    break;
                case JsonArray array:
                    for (int i = 0; i < array.Count; i++)
                    {
                        if (array[i] is JsonObject element)
                        {
                            AddMembers($"{prefix}{name}.{i}.", element);
                        }
                        else
                        {
                            _pairs.Add(new($"{prefix}{name}.{i}", Scalar(array[i])));
                        }
                    }

                    break;
                default:
                    _pairs.Add(new(prefix + name, Scalar(value)));
                    break;
            }
        }
    }

    private static string Scalar(JsonNode? node) => node?.GetValueKind() switch
    {
        JsonValueKind.True => "on",
        JsonValueKind.False => "off",
        JsonValueKind.String => node.GetValue<string>(),
        null => "",
        _ => node.ToString(),
    };
}
