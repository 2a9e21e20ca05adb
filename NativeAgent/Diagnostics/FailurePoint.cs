namespace FCtrans.Agent.Diagnostics;

/// <summary>
/// Named places in the work of a worker where a test can stop it or kill it, so that a race or a crash at an exact step is a
/// plain test. Off (one null check) unless, when the process starts, the environment variable FCTRANS_FAILURE_POINTS or the file
/// <c>/run/fctrans/failure-points</c> (which only root can write) has a list such as
/// <c>source.committed=kill;main.evict.read=park</c>.
/// <list type="bullet">
/// <item><c>kill</c>: the process ends at once, as by <c>kill -9</c>, the first time only: a marker file remembers it, so that
/// the restarted worker goes on.</item>
/// <item><c>cut</c>: each data connection of the process that passed its handshake ends, as if the network had lost it; the first time only.</item>
/// <item><c>fail</c>: the step fails with an <see cref="IOException"/>; the first time only.</item>
/// <item><c>park</c>: makes the file NAME.reached and waits until NAME.go exists.</item>
/// </list>
/// Those files lie in the directory that FCTRANS_FAILURE_DIRECTORY names, else in <c>/run/fctrans</c>.
/// </summary>
internal static class FailurePoint
{
    private const string PointsFile = "/run/fctrans/failure-points";

    private static readonly Dictionary<string, string>? s_actions = Parse(
        Environment.GetEnvironmentVariable("FCTRANS_FAILURE_POINTS")
        ?? (File.Exists(PointsFile) ? File.ReadAllText(PointsFile).Trim() : null));

    private static readonly string s_directory =
        Environment.GetEnvironmentVariable("FCTRANS_FAILURE_DIRECTORY") ?? "/run/fctrans";

    /// <summary>What <c>cut</c> cuts; null unless a point asks for it.</summary>
    private static readonly List<WeakReference<Transport.FrameConnection>>? s_connections =
        s_actions is not null && s_actions.ContainsValue("cut") ? [] : null;

    /// <summary>A connection that <c>cut</c> is to end too.</summary>
    public static void Register(Transport.FrameConnection connection)
    {
        if (s_connections is { } connections)
        {
            lock (connections)
            {
                connections.Add(new(connection));
            }
        }
    }

    public static void Reach(string name)
    {
        if (s_actions is null || !s_actions.TryGetValue(name, out string? action))
        {
            return;
        }

        string reached = Path.Combine(s_directory, name + ".reached");
        if (action == "kill")
        {
            if (!File.Exists(reached))
            {
                File.WriteAllText(reached, "");
                System.Diagnostics.Process.GetCurrentProcess().Kill();
            }

            return;
        }

        if (action == "fail")
        {
            if (!File.Exists(reached))
            {
                File.WriteAllText(reached, "");
                throw new IOException($"The failure point {name} was told to fail.");
            }

            return;
        }

        if (action == "cut")
        {
            lock (s_connections!)
            {
                if (File.Exists(reached))
                {
                    return;
                }

                File.WriteAllText(reached, "");
                s_connections.ForEach(weak =>
                {
                    if (weak.TryGetTarget(out var connection))
                    {
                        connection.Abort();
                    }
                });
                s_connections.Clear();
            }

            return;
        }

        File.WriteAllText(reached, "");
        while (!File.Exists(Path.Combine(s_directory, name + ".go")))
        {
            // Only ever in a test: the poll is the wait itself, not a guess at how long something takes.
            Thread.Sleep(2);
        }
    }

    private static Dictionary<string, string>? Parse(string? text)
    {
        if (string.IsNullOrEmpty(text))
        {
            return null;
        }

        var actions = new Dictionary<string, string>();
        foreach (string entry in text.Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
        {
            string[] parts = entry.Split('=', 2);
            if (parts.Length != 2 || parts[1] is not ("kill" or "park" or "cut" or "fail"))
            {
                throw new FormatException($"FCTRANS_FAILURE_POINTS: '{entry}' is not NAME=kill, NAME=park, NAME=cut or NAME=fail.");
            }

            actions[parts[0]] = parts[1];
        }

        return actions;
    }
}
