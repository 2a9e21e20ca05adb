using FCtrans.Contracts;

namespace FCtrans.Client;

/// <summary>
/// Takes FCtrans off a host: the records of migrations that ended, the agent in all its versions, and its directories. First of all
/// it makes sure that no VM depends on what is there: then nothing is touched.
/// </summary>
internal static class AgentRemoval
{
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(60);

    /// <exception cref="FCtransException">AgentInUse, AgentRefused, ConnectionLost.</exception>
    public static async Task RunAsync(KvmHostConnection host, SshSession session, CancellationToken cancellation)
    {
        IReadOnlyList<WorkerSummary> workers = await host.ListWorkersAsync(cancellation).ConfigureAwait(false);
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
            AgentDeployment.InPosixShell(
                $"rm -rf '{path}/agent' && rmdir '{path}' && rm -rf /run/fctrans && rm -rf /dev/shm/fctrans-*", host.Settings.Sudo),
            null, s_limit, cancellation).ConfigureAwait(false);
        if (!removed.Succeeded)
        {
            throw Failure.AgentRefused(host.Name, "its files could not be removed: " + removed.Reason);
        }
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
