using System.Security.Cryptography;
using System.Text;

namespace FCtrans.Client;

/// <summary>
/// A known-hosts file in OpenSSH's format. Read anew for every connection, because ssh and other sessions write to it too;
/// changed by writing a whole new file beside it and renaming, so that a reader never sees half of one.
/// </summary>
public sealed class KnownHostsFile
{
    private static readonly object s_writing = new();

    private readonly List<KnownHostsLine> _lines;

    private KnownHostsFile(string path, List<KnownHostsLine> lines)
    {
        Path = path;
        _lines = lines;
    }

    /// <summary>The file, whether or not it exists yet.</summary>
    public string Path { get; }

    /// <summary>Reads the file; one that does not exist names no host.</summary>
    /// <exception cref="FCtransException">KnownHostsUnusable: it can't be read.</exception>
    public static KnownHostsFile Read(string path)
    {
        try
        {
            return new KnownHostsFile(path, File.Exists(path) ? Parse(File.ReadLines(path)) : []);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw Failure.KnownHostsUnusable(path, e.Message, e);
        }
    }

    internal static KnownHostsFile FromText(string text) => new("(text)", Parse(text.Split('\n')));

    /// <summary>How known-hosts files write a host: the port stands there only when it is not 22.</summary>
    public static string NameOf(string host, int port) =>
        port == 22 ? host.ToLowerInvariant() : $"[{host.ToLowerInvariant()}]:{port}";

    /// <summary>SHA-256 of the key as OpenSSH prints it: <c>SHA256:</c> and unpadded base64.</summary>
    public static string Fingerprint(ReadOnlySpan<byte> key)
    {
        Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes];
        SHA256.HashData(key, hash);
        return "SHA256:" + Convert.ToBase64String(hash).TrimEnd('=');
    }

    /// <summary>Looks the key up. A revoked key stays revoked, whatever other lines say.</summary>
    public HostKeyFinding Find(string host, int port, ReadOnlySpan<byte> key)
    {
        string name = NameOf(host, port);
        var finding = new HostKeyFinding(HostKeyStatus.Unknown, 0);
        foreach (KnownHostsLine line in _lines)
        {
            // A certificate authority's line says nothing of a plain key.
            if (line.Marker == "@cert-authority" || !line.Names(name))
            {
                continue;
            }

            bool same = key.SequenceEqual(line.Key);
            if (line.Marker == "@revoked")
            {
                if (same)
                {
                    return new HostKeyFinding(HostKeyStatus.Revoked, line.Number);
                }
            }
            else if (line.Marker.Length == 0)
            {
                if (same)
                {
                    finding = new HostKeyFinding(HostKeyStatus.Known, line.Number);
                }
                else if (finding.Status == HostKeyStatus.Unknown)
                {
                    finding = new HostKeyFinding(HostKeyStatus.Changed, line.Number);
                }
            }
        }

        return finding;
    }

    /// <summary>The key types (as in the file: <c>ssh-ed25519</c>, …) known of the host, in the file's order.</summary>
    public IReadOnlyList<string> KeyTypes(string host, int port)
    {
        string name = NameOf(host, port);
        return [.. _lines.Where(l => l.Marker.Length == 0 && l.Names(name)).Select(l => l.KeyType).Distinct()];
    }

    /// <summary>The names that stand there plainly: not hashed, without wildcards. For completion.</summary>
    public IReadOnlyList<string> HostNames => [.. _lines.Where(l => l.Marker.Length == 0).SelectMany(l => l.PlainNames)
        .Distinct(StringComparer.OrdinalIgnoreCase)];

    /// <summary>
    /// Remembers the key and forgets the host's other keys: a line for this host alone goes (a hashed one too), in a line for
    /// several hosts only its name does. A line whose wildcards match stays: any match is enough, and it speaks of other hosts. Where the
    /// user keeps no file (an empty path, /dev/null), nothing is remembered.
    /// </summary>
    /// <exception cref="FCtransException">KnownHostsUnusable: it can't be written.</exception>
    public static void Replace(string path, string host, int port, string keyType, byte[] key)
    {
        if (!Remembers(path))
        {
            return;
        }

        string name = NameOf(host, port);
        lock (s_writing)
        {
            try
            {
                string full = System.IO.Path.GetFullPath(path);
                string directory = System.IO.Path.GetDirectoryName(full)!;
                if (!Directory.Exists(directory))
                {
                    MakePrivateDirectory(directory);
                }

                var kept = new List<string>();
                int number = 0;
                foreach (string text in File.Exists(full) ? File.ReadAllLines(full) : [])
                {
                    KnownHostsLine? line = KnownHostsLine.Parse(text, ++number);
                    string? rest = line is { Marker: "" } && line.Names(name) ? WithoutName(text, name) : text;
                    if (rest is not null)
                    {
                        kept.Add(rest);
                    }
                }

                kept.Insert(0, $"{name} {keyType} {Convert.ToBase64String(key)}");
                string temporary = $"{full}.{Environment.ProcessId}.new";
                File.WriteAllText(temporary, string.Join('\n', kept) + "\n", new UTF8Encoding(false));
                if (!OperatingSystem.IsWindows())
                {
                    File.SetUnixFileMode(
                        temporary, File.Exists(full) ? File.GetUnixFileMode(full) : UnixFileMode.UserRead | UnixFileMode.UserWrite);
                }

                File.Move(temporary, full, overwrite: true);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
            {
                throw Failure.KnownHostsUnusable(path, e.Message, e);
            }
        }
    }

    /// <summary>/dev/null stands for no file: a new file put in its place would harm the whole system.</summary>
    internal static bool Remembers(string path) => path.Length > 0 && path != "/dev/null";

    private static List<KnownHostsLine> Parse(IEnumerable<string> texts)
    {
        var lines = new List<KnownHostsLine>();
        int number = 0;
        foreach (string text in texts)
        {
            if (KnownHostsLine.Parse(text, ++number) is { } line)
            {
                lines.Add(line);
            }
        }

        return lines;
    }

    private static string? WithoutName(string text, string name)
    {
        string trimmed = text.TrimStart();
        int end = trimmed.IndexOfAny([' ', '\t']);
        string[] patterns = trimmed[..end].Split(',', StringSplitOptions.RemoveEmptyEntries);
        string[] others = [.. patterns.Where(p => !p.Equals(name, StringComparison.OrdinalIgnoreCase) && p[0] != '|')];
        return others.Length == 0 ? null : string.Join(',', others) + trimmed[end..];
    }

    private static void MakePrivateDirectory(string directory)
    {
        if (OperatingSystem.IsWindows())
        {
            Directory.CreateDirectory(directory);
        }
        else
        {
            Directory.CreateDirectory(directory, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
    }
}
