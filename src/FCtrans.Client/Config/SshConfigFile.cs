using System.Globalization;

namespace FCtrans.Client;

/// <summary>
/// An OpenSSH client configuration (ssh_config(5)): Host and Match blocks, Include, and of each keyword the first value that
/// applies. Only what FCtrans uses is given out; other keywords are read over, as ssh itself decides what they mean.
/// </summary>
/// <remarks>Of Match, the criteria <c>all</c>, <c>host</c> and <c>originalhost</c> are known; a block with others is left out.</remarks>
public sealed class SshConfigFile
{
    private const int MaximumDepth = 8;
    private const int MaximumLines = 100_000;
    private const string EndOfFile = "(end of file)";

    private readonly List<Line> _lines = [];
    private readonly string _home;

    /// <summary>What relative paths after Include start from.</summary>
    private string _includes;

    private SshConfigFile(string home)
    {
        _home = home;
        _includes = Path.Combine(home, ".ssh");
    }

    private static string Home => Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);

    /// <summary>Reads the file and all that it includes, and nothing else, as <c>ssh -F</c>; one that does not exist says nothing.</summary>
    /// <exception cref="FCtransException">SshConfigUnusable.</exception>
    public static SshConfigFile Read(string path)
    {
        var file = new SshConfigFile(Home);
        file.ReadTop(path);
        return file;
    }

    /// <summary>Reads what ssh reads by itself: the user's file, then the system's. What the user's says of a keyword comes first.</summary>
    /// <exception cref="FCtransException">SshConfigUnusable.</exception>
    public static SshConfigFile ReadDefault() => ReadBoth(SshPaths.UserDirectory, SshPaths.SystemDirectory);

    internal static SshConfigFile ReadBoth(string userDirectory, string systemDirectory)
    {
        SshConfigFile file = Read(Path.Combine(userDirectory, "config"));

        // The user's last block ends with the user's file.
        file._lines.Add(new Line(systemDirectory, 0, EndOfFile, [], []));
        file._includes = systemDirectory;
        file.ReadTop(Path.Combine(systemDirectory, "ssh_config"));
        return file;
    }

    internal static SshConfigFile FromText(string text, string home = "/home/user")
    {
        var file = new SshConfigFile(home);
        file.Add("(text)", text.Split('\n'), 0);
        return file;
    }

    /// <summary>Names after Host that have no wildcards, for completion.</summary>
    public IReadOnlyList<string> HostNames =>
        [.. _lines.Where(l => l.Keyword == "host").SelectMany(l => l.Arguments)
            .Where(a => a.IndexOfAny(['*', '?', '!']) < 0).Distinct(StringComparer.OrdinalIgnoreCase)];

    /// <summary>What the file says of a host as the user named it.</summary>
    /// <exception cref="FCtransException">SshConfigUnusable: a value makes no sense.</exception>
    public SshHostConfig Find(string host)
    {
        string? hostName = null, user = null, proxyJump = null, alias = null, agent = null;
        string[]? userKnownHosts = null, systemKnownHosts = null;
        int? port = null;
        bool? identitiesOnly = null, acceptNew = null;
        var identities = new List<string>();
        bool applies = true;
        foreach (Line line in _lines)
        {
            string value = line.Arguments.Length > 0 ? line.Arguments[0] : "";
            switch (line.Keyword)
            {
                case "host":
                    applies = line.Enclosing(host) && Matches(line.Arguments, host);
                    break;
                case "match":
                    applies = line.Enclosing(host) && MatchApplies(line.Arguments, host, hostName ?? host);
                    break;
                case EndOfFile:
                    applies = line.Enclosing(host);
                    break;
                case "hostname" when applies:
                    hostName ??= value;
                    break;
                case "user" when applies:
                    user ??= value;
                    break;
                case "port" when applies:
                    port ??= int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number is > 0 and < 65536
                        ? number : throw Unusable(line, $"'{value}' is no port");
                    break;
                case "identityfile" when applies:
                    identities.Add(value);
                    break;
                case "identitiesonly" when applies:
                    identitiesOnly ??= IsYes(value);
                    break;
                case "identityagent" when applies:
                    agent ??= value;
                    break;
                case "proxyjump" when applies:
                    proxyJump ??= value;
                    break;
                case "proxycommand" when applies && proxyJump is null:
                    proxyJump = value.Equals("none", StringComparison.OrdinalIgnoreCase)
                        ? "none" : throw Unusable(line, "ProxyCommand is not supported; use ProxyJump");
                    break;
                case "userknownhostsfile" when applies:
                    userKnownHosts ??= line.Arguments;
                    break;
                case "globalknownhostsfile" when applies:
                    systemKnownHosts ??= line.Arguments;
                    break;
                case "hostkeyalias" when applies:
                    alias ??= value;
                    break;
                case "stricthostkeychecking" when applies:
                    acceptNew ??= value.Equals("accept-new", StringComparison.OrdinalIgnoreCase);
                    break;
            }
        }

        string Expand(string text) => ExpandTokens(text, hostName ?? host, port ?? 22, user ?? "root");
        string[]? Files(string[]? named) => named switch
        {
            null => null,
            [var only] when only.Equals("none", StringComparison.OrdinalIgnoreCase) => [],
            _ => [.. named.Select(Expand)],
        };
        return new SshHostConfig
        {
            HostName = hostName is null ? null : hostName.Replace("%h", host, StringComparison.Ordinal).Replace("%%", "%", StringComparison.Ordinal),
            User = user,
            Port = port,
            IdentityFiles = [.. identities.Where(i => !i.Equals("none", StringComparison.OrdinalIgnoreCase)).Select(Expand).Distinct()],
            IdentitiesOnly = identitiesOnly ?? false,
            IdentityAgent = agent is null ? null : Expand(agent),
            ProxyJump = proxyJump is null || proxyJump.Equals("none", StringComparison.OrdinalIgnoreCase) ? null : Expand(proxyJump),
            UserKnownHostsFiles = Files(userKnownHosts),
            SystemKnownHostsFiles = Files(systemKnownHosts),
            HostKeyAlias = alias,
            AcceptNewHostKey = acceptNew ?? false,
        };
    }

    private static bool IsYes(string value) =>
        value.Equals("yes", StringComparison.OrdinalIgnoreCase) || value.Equals("true", StringComparison.OrdinalIgnoreCase);

    /// <summary>A negated pattern that matches wins over all others.</summary>
    private static bool Matches(IEnumerable<string> patterns, string host)
    {
        bool found = false;
        foreach (string pattern in patterns)
        {
            if (pattern.StartsWith('!'))
            {
                if (KnownHostsLine.WildcardMatches(pattern.AsSpan(1), host))
                {
                    return false;
                }
            }
            else
            {
                found |= KnownHostsLine.WildcardMatches(pattern, host);
            }
        }

        return found;
    }

    private static bool MatchApplies(string[] criteria, string original, string hostName)
    {
        for (int i = 0; i < criteria.Length; i++)
        {
            bool holds = criteria[i].ToLowerInvariant() switch
            {
                "all" => true,
                "host" when i + 1 < criteria.Length => Matches(criteria[++i].Split(','), hostName),
                "originalhost" when i + 1 < criteria.Length => Matches(criteria[++i].Split(','), original),
                _ => false,
            };
            if (!holds)
            {
                return false;
            }
        }

        return criteria.Length > 0;
    }

    private string ExpandTokens(string text, string host, int port, string remoteUser)
    {
        if (text == "~" || text.StartsWith("~/", StringComparison.Ordinal))
        {
            text = _home + text[1..];
        }

        var result = new System.Text.StringBuilder(text.Length);
        for (int i = 0; i < text.Length; i++)
        {
            if (text[i] != '%' || i + 1 == text.Length)
            {
                result.Append(text[i]);
                continue;
            }

            result.Append(text[++i] switch
            {
                '%' => "%",
                'h' => host,
                'p' => port.ToString(CultureInfo.InvariantCulture),
                'r' => remoteUser,
                'u' => Environment.UserName,
                'd' => _home,
                char other => "%" + other,
            });
        }

        return result.ToString();
    }

    private FCtransException Unusable(Line line, string reason) =>
        Failure.SshConfigUnusable(line.File, $"line {line.Number}: {reason}");

    private void ReadTop(string path)
    {
        if (File.Exists(path))
        {
            ReadLines(path, 0);
        }
    }

    private void ReadLines(string path, int depth, List<Line>? enclosing = null)
    {
        try
        {
            Add(path, File.ReadLines(path), depth, enclosing);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Failure.SshConfigUnusable(path, e.Message, e);
        }
    }

    private void Add(string path, IEnumerable<string> texts, int depth, List<Line>? enclosing = null)
    {
        List<Line> around = enclosing ?? [];
        Line? block = null;
        int number = 0;
        foreach (string text in texts)
        {
            number++;
            string[] words = Words(text);
            if (words.Length == 0)
            {
                continue;
            }

            if (_lines.Count >= MaximumLines)
            {
                throw Failure.SshConfigUnusable(path, "it is too long");
            }

            var line = new Line(path, number, words[0].ToLowerInvariant(), words[1..], [.. around]);
            if (line.Keyword != "include")
            {
                block = line.Keyword is "host" or "match" ? line : block;
                _lines.Add(line);
                continue;
            }

            if (depth >= MaximumDepth)
            {
                throw Unusable(line, "files include each other without end");
            }

            // What is included in a block applies where the block does; after it, the block goes on.
            List<Line> inside = block is null ? around : [.. around, block];
            foreach (string included in line.Arguments.SelectMany(Included))
            {
                ReadLines(included, depth + 1, inside);
                _lines.Add(new Line(path, number, EndOfFile, [], [.. inside]));
            }
        }
    }

    private IEnumerable<string> Included(string pattern)
    {
        string full = pattern.StartsWith("~/", StringComparison.Ordinal) ? _home + pattern[1..]
            : Path.IsPathRooted(pattern) ? pattern : Path.Combine(_includes, pattern);
        string? directory = Path.GetDirectoryName(full);
        return directory is null || !Directory.Exists(directory)
            ? [] : Directory.EnumerateFiles(directory, Path.GetFileName(full)).Order(StringComparer.Ordinal);
    }

    /// <summary>Keyword and arguments: separated by blanks or one equals sign, quoted by double quotes.</summary>
    private static string[] Words(string text)
    {
        var words = new List<string>();
        int i = 0;
        while (true)
        {
            while (i < text.Length && (char.IsWhiteSpace(text[i]) || (words.Count == 1 && text[i] == '=')))
            {
                i++;
            }

            if (i == text.Length || text[i] == '#')
            {
                return [.. words];
            }

            int start = i;
            if (text[i] == '"')
            {
                int end = text.IndexOf('"', i + 1);
                end = end < 0 ? text.Length : end;
                words.Add(text[(start + 1)..end]);
                i = Math.Min(end + 1, text.Length);
            }
            else
            {
                while (i < text.Length && !char.IsWhiteSpace(text[i]) && !(words.Count == 0 && text[i] == '='))
                {
                    i++;
                }

                words.Add(text[start..i]);
            }
        }
    }

    /// <summary>A line, and the blocks of the files that include the one it stands in.</summary>
    private sealed record Line(string File, int Number, string Keyword, string[] Arguments, Line[] Around)
    {
        public bool Enclosing(string host) => Around.All(b => b.Keyword == "host"
            ? Matches(b.Arguments, host) : MatchApplies(b.Arguments, host, host));
    }
}
