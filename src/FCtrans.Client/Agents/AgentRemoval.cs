using FCtrans.Contracts;

namespace FCtrans.Client;

/// <summary>
/// Takes FCtrans off a host: the records of migrations that ended, the agent in all its versions, and its directories, those in the homes
/// of users too whom earlier connections logged on as. First of all it makes sure that no VM depends on what is there: then nothing is
/// touched.
/// </summary>
internal static class AgentRemoval
{
    private const string NotRoot = "not root";
    private const string Left = "left ";
    private const string RootDirectory = "/var/lib/fctrans/";

    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(60);

    /// <summary>
    /// One line: the log-in shell that is handed it may be csh. In a user's home everything belongs to that user, who may have put links there that lead elsewhere: root removes nothing in it, but has
    /// it removed with the user's own rights, and not through links.
    /// </summary>
    private const string InHomes =
        "[ \"$(id -u)\" = 0 ] || { echo not root; exit 0; }; "
        + "rm -rf /run/fctrans /dev/shm/fctrans-* || exit 1; "
        + "{ getent passwd || cat /etc/passwd; } 2>/dev/null | while IFS=: read -r name x uid gid comment home shell; do "
        + "case \"$home\" in /?*) ;; *) continue ;; esac; "
        + "d=\"$home/.local/share/fctrans\"; "
        + "[ -d \"$d\" ] || [ -L \"$d\" ] || continue; "
        + "if [ ! -L \"$home/.local\" ] && [ ! -L \"$home/.local/share\" ] && [ ! -L \"$d\" ]; then "
        + "as=\"setpriv --reuid=$uid --regid=$gid --clear-groups\"; "
        + "$as rm -rf \"$d/agent\" </dev/null && $as rmdir \"$d\" </dev/null && continue; "
        + "fi; echo \"left $d\"; done";

    /// <returns>What could not be removed, or not be looked at, and what to do about it; empty when nothing of FCtrans is left.</returns>
    /// <exception cref="FCtransException">AgentInUse, AgentRefused, ConnectionLost.</exception>
    public static async Task<string> RunAsync(KvmHostConnection host, SshSession session, CancellationToken cancellation)
    {
        IReadOnlyList<WorkerSummary> workers = [];
        try
        {
            workers = await host.ListWorkersAsync(cancellation).ConfigureAwait(false);
        }
        catch (FCtransException e) when (e.Kind is not (FailureKind.Connection or FailureKind.Timeout) && !host.AgentPath.StartsWith(RootDirectory, StringComparison.Ordinal))
        {
            // Without root the workers are not to be seen; they run as root, by the agent that root has, which stays.
        }

        RefuseInUse(host.Name, workers.Where(w => w.Running));
        foreach (WorkerSummary worker in workers)
        {
            try
            {
                // Never by force: the agent knows of a VM that waits for a worker which is just being started again.
                await host.RemoveWorkerAsync(worker.Spec.SplitId, worker.Spec.Role, force: false, cancellation).ConfigureAwait(false);
            }
            catch (FCtransException e) when (e.Kind == FailureKind.NotFound)
            {
            }
            catch (FCtransException e) when (e.ErrorId == nameof(Failure.AgentRefused))
            {
                RefuseInUse(host.Name, [worker]);
            }
        }

        // The agent's directory as AgentDeployment chose it: DIRECTORY/agent/VERSION/fctrans-agent. Not a path of the user's.
        string path = host.AgentPath;
        for (int i = 0; i < 3; i++)
        {
            path = path[..path.LastIndexOf('/')];
        }

        if (!path.EndsWith("/fctrans", StringComparison.Ordinal))
        {
            throw Failure.AgentRefused(host.Name, $"'{path}' does not look like the agent's directory");
        }

        RemoteCommandResult removed = await session.RunAsync(
            AgentDeployment.InPosixShell($"rm -rf '{path}/agent' && rmdir '{path}' || exit 1; {InHomes}", host.Settings.Sudo),
            null, s_limit, cancellation).ConfigureAwait(false);
        if (!removed.Succeeded)
        {
            throw Failure.AgentRefused(host.Name, "its files could not be removed: " + removed.Reason);
        }

        string[] said = removed.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        string[] left = [.. said.Where(l => l.StartsWith(Left, StringComparison.Ordinal)).Select(l => AgentDeployment.Printable(l[Left.Length..]))];
        return said.Contains(NotRoot)
            ? $"Only what lay under '{path}' was removed: without root, /var/lib/fctrans, /run/fctrans and the homes of other users could not be looked at. "
                + "Connect as root, or with -Sudo, and remove it again."
            : left.Length > 0
                ? $"This was not removed, since a link leads there or its owner may not: {string.Join(", ", left)}. Look at it and remove it by hand."
                : "";
    }

    private static void RefuseInUse(string host, IEnumerable<WorkerSummary> workers)
    {
        string[] users = [.. workers.Select(w => w.Spec.Role switch
        {
            WorkerRole.Source => $"the VM '{w.Spec.VmName}' is being migrated from it",
            WorkerRole.Main => $"the split VM '{w.Spec.VmName}' runs there",
            _ => $"a part of the memory of the split VM '{w.Spec.VmName}' lies there",
        })];
        if (users.Length > 0)
        {
            throw Failure.AgentInUse(host, string.Join("; ", users));
        }
    }
}
