using FCtrans.Agent.Rpc;
using FCtrans.Contracts;

namespace FCtrans.Agent.Workers;

/// <summary>
/// Workers that another agent's program runs, brought under this one while their VMs run: they are ended as a crash would end them and begin
/// again from their directories, a path that they have to know anyway. A guest that wants a remote page waits until then, some tenths of a second.
/// </summary>
internal static class WorkerUpgrade
{
    private static readonly TimeSpan s_timeout = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan s_poll = TimeSpan.FromMilliseconds(5);

    /// <summary>Those that hold memory of a VM that has been split. A migration under way is left alone: it ends by itself.</summary>
    public static IReadOnlyList<WorkerDirectory> Outdated()
    {
        try
        {
            return [.. WorkerDirectory.All().Where(IsOutdated)];
        }
        catch (UnauthorizedAccessException)
        {
            // Workers are root's: whoever is not may look at the host all the same.
            return [];
        }
    }

    /// <summary>Returns when it serves again.</summary>
    /// <exception cref="InvalidOperationException">It does not: says where its log is.</exception>
    public static void Upgrade(WorkerDirectory directory, CancellationToken cancel)
    {
        int before = directory.RunningProcess(Markers.WorkerPid);
        WorkerManager.Kill(directory);
        Supervisor.Launch(directory);
        var deadline = DateTime.UtcNow + s_timeout;
        while (directory.RunningProcess(Markers.WorkerPid) is var pid && (pid == 0 || pid == before || WorkerClient.TryGetStatus(directory) is null))
        {
            // Given up by the caller or not: its supervisor goes on trying.
            if (DateTime.UtcNow > deadline || cancel.IsCancellationRequested)
            {
                throw new InvalidOperationException(
                    $"The {WorkerDirectory.RoleName(directory.Role)} worker of split {directory.SplitId} does not answer after it was started again. Its log: {directory.LogPath}");
            }

            Thread.Sleep(s_poll);
        }
    }

    private static bool IsOutdated(WorkerDirectory directory)
        => directory.Role is WorkerRole.Main or WorkerRole.Sub
            && directory.Has(Markers.Ready) && !directory.Has(Markers.Ended) && !directory.IsOfLaterFormat
            && (directory.Role != WorkerRole.Main || directory.Has(Markers.Ran))
            && directory.RunningProcess(Markers.WorkerPid) is var pid and > 0
            && ProgramOf(pid) is { } program && program != Environment.ProcessPath;

    /// <summary>The file that a process runs, with a note of the kernel's when it was removed or replaced; null when the process has ended.</summary>
    private static string? ProgramOf(int processId)
    {
        try
        {
            return new FileInfo($"/proc/{processId}/exe").LinkTarget;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
