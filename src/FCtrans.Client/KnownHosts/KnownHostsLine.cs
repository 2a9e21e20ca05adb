using System.Security.Cryptography;
using System.Text;

namespace FCtrans.Client;

/// <summary>
/// One line of a known-hosts file (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): optional marker, host patterns, key type, key.
/// Lines that OpenSSH would not read are not made into one of these, and so decide nothing.
/// </summary>
internal sealed class KnownHostsLine
{
    private const string HashPrefix = "|1|";

    private readonly string[] _patterns;

    private KnownHostsLine(int number, string marker, string[] patterns, string keyType, byte[] key)
    {
        Number = number;
        Marker = marker;
        _patterns = patterns;
        KeyType = keyType;
        Key = key;
    }

    public int Number { get; }

    /// <summary>Empty, <c>@revoked</c> or <c>@cert-authority</c>.</summary>
    public string Marker { get; }

    public string KeyType { get; }

    public byte[] Key { get; }

    /// <summary>Hosts named as they are; of <c>[host]:port</c> the host.</summary>
    public IEnumerable<string> PlainNames => _patterns.Where(p => p.IndexOfAny(['|', '*', '?', '!']) < 0)
        .Select(p => p[0] == '[' && p.IndexOf(']') is > 1 and int end ? p[1..end] : p);

    public static KnownHostsLine? Parse(string text, int number)
    {
        string[] fields = text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
        if (fields.Length == 0 || fields[0][0] == '#')
        {
            return null;
        }

        int at = 0;
        string marker = "";
        if (fields[0][0] == '@')
        {
            marker = fields[at++];
        }

        if (fields.Length - at < 3)
        {
            return null;
        }

        byte[] key;
        try
        {
            key = Convert.FromBase64String(fields[at + 2]);
        }
        catch (FormatException)
        {
            return null;
        }

        return new KnownHostsLine(
            number, marker, fields[at].Split(',', StringSplitOptions.RemoveEmptyEntries), fields[at + 1], key);
    }

    /// <summary>
    /// Whether the line is about the host. <paramref name="name"/> is the name as known-hosts files write it:
    /// <c>host</c>, or <c>[host]:port</c> when the port is not 22. A matching negated pattern wins over all others.
    /// </summary>
    public bool Names(string name)
    {
        bool found = false;
        foreach (string pattern in _patterns)
        {
            if (pattern.StartsWith(HashPrefix, StringComparison.Ordinal))
            {
                found |= HashMatches(pattern, name);
            }
            else if (pattern[0] == '!')
            {
                if (WildcardMatches(pattern.AsSpan(1), name))
                {
                    return false;
                }
            }
            else
            {
                found |= WildcardMatches(pattern, name);
            }
        }

        return found;
    }

    /// <summary><c>|1|base64 salt|base64 HMAC-SHA1(salt, name)</c>.</summary>
    private static bool HashMatches(string pattern, string name)
    {
        string[] parts = pattern[HashPrefix.Length..].Split('|');
        if (parts.Length != 2)
        {
            return false;
        }

        try
        {
            byte[] salt = Convert.FromBase64String(parts[0]);
            byte[] hash = Convert.FromBase64String(parts[1]);
#pragma warning disable CA5350 // The file format says SHA-1; it hides the name, it does not protect the key.
            byte[] ours = HMACSHA1.HashData(salt, Encoding.UTF8.GetBytes(name));
#pragma warning restore CA5350
            return CryptographicOperations.FixedTimeEquals(hash, ours);
        }
        catch (FormatException)
        {
            return false;
        }
    }

    /// <summary>
    /// <c>*</c> is any run, <c>?</c> any one character; case does not matter. Backtracks to the last star only, so that a
    /// hostile pattern costs at most its length times the name's.
    /// </summary>
    internal static bool WildcardMatches(ReadOnlySpan<char> pattern, ReadOnlySpan<char> name)
    {
        int p = 0, n = 0, star = -1, resume = 0;
        while (n < name.Length)
        {
            // The star first: a name can't hold one, but a pattern's star must not be taken for a plain character.
            if (p < pattern.Length && pattern[p] == '*')
            {
                star = p++;
                resume = n;
            }
            else if (p < pattern.Length
                && (pattern[p] == '?' || char.ToLowerInvariant(pattern[p]) == char.ToLowerInvariant(name[n])))
            {
                p++;
                n++;
            }
            else if (star >= 0)
            {
                p = star + 1;
                n = ++resume;
            }
            else
            {
                return false;
            }
        }

        while (p < pattern.Length && pattern[p] == '*')
        {
            p++;
        }

        return p == pattern.Length;
    }
}
