using FCtrans.Agent.Interop;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Rpc;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;

namespace FCtrans.Agent.Workers;

/// <summary>Prepares, starts, lists and removes the workers of this host. All it knows is in their directories.</summary>
internal static class WorkerManager
{
    private const int SigKill = 9;
    private const int SigTerm = 15;

    private static readonly TimeSpan s_startTimeout = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan s_startPoll = TimeSpan.FromMilliseconds(5);
    private static readonly TimeSpan s_endTimeout = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_stopTimeout = TimeSpan.FromSeconds(10);

    /// <returns>The thumbprint of the worker's new certificate.</returns>
    /// <exception cref="InvalidOperationException">There is such a worker already.</exception>
    public static string Prepare(string splitId, WorkerRole role)
    {
        var directory = WorkerDirectory.Of(splitId, role);
        if (directory.Exists)
        {
            throw new InvalidOperationException($"This host has a {WorkerDirectory.RoleName(role)} worker of split {splitId} already.");
        }

        directory.Create();
        using var certificate = WorkerCertificate.Create(directory.Path);
        return certificate.Thumbprint;
    }

    /// <summary>Starts a prepared worker and waits until others may rely on it.</summary>
    /// <exception cref="InvalidOperationException">It could not begin; says why.</exception>
    public static StartedWorker Start(WorkerSpec spec, CancellationToken cancel)
    {
        var directory = WorkerDirectory.Of(spec.SplitId, spec.Role);
        if (!directory.Exists || directory.ReadSpec() is not null)
        {
            throw new InvalidOperationException("The worker was not prepared, or was started before.");
        }

        Check(spec);
        directory.WriteSpec(spec);
        Supervisor.Launch(directory);
        var deadline = DateTime.UtcNow + s_startTimeout;
        while (true)
        {
            if (directory.Has(Markers.Ready))
            {
                return new StartedWorker
                {
                    ProcessId = directory.ReadNumber(Markers.WorkerPid),
                    DataPort = (uint)directory.ReadNumber(Markers.Ready),
                };
            }

            if (directory.Read(Markers.Refused) is { } reason)
            {
                Stop(directory);
                RemoveFiles(directory);
                directory.Remove();
                throw new InvalidOperationException(reason);
            }

            if (DateTime.UtcNow > deadline || cancel.IsCancellationRequested)
            {
                Stop(directory);
                RemoveFiles(directory);
                directory.Remove();
                throw new InvalidOperationException($"The {WorkerDirectory.RoleName(spec.Role)} worker did not begin within {s_startTimeout.TotalSeconds} s.");
            }

            Thread.Sleep(s_startPoll);
        }
    }

    public static IEnumerable<WorkerSummary> List()
    {
        foreach (var directory in WorkerDirectory.All())
        {
            if (directory.ReadSpec() is not { } spec)
            {
                continue;
            }

            int processId = directory.RunningProcess(Markers.WorkerPid);
            yield return new WorkerSummary
            {
                Spec = spec,
                Status = WorkerClient.TryGetStatus(directory)
                    ?? directory.ReadStatus()
                    ?? new WorkerStatus { Role = spec.Role, SplitId = spec.SplitId, VmName = spec.VmName },
                Running = processId != 0 && !directory.Has(Markers.Ended),
                ProcessId = processId,
            };
        }
    }

    /// <summary>Ends a worker and removes all that it has on this host. Nothing to do if there is none.</summary>
    /// <exception cref="InvalidOperationException">A VM depends on it, and <paramref name="force"/> is not set.</exception>
    public static void Remove(string splitId, WorkerRole role, bool force)
    {
        var directory = WorkerDirectory.Of(splitId, role);
        if (!directory.Exists)
        {
            return;
        }

        // One that was just told that the split is over needs a moment to end.
        bool ended = force || SpinWait.SpinUntil(() => !directory.Exists || directory.Has(Markers.Ended) || !directory.Has(Markers.Ready), s_endTimeout);
        if (!ended)
        {
            throw new InvalidOperationException(
                $"The {WorkerDirectory.RoleName(role)} worker of split {splitId} is at work; a VM depends on it.");
        }

        Stop(directory);
        RemoveFiles(directory);
        directory.Remove();
    }

    private static void RemoveFiles(WorkerDirectory directory)
    {
        switch (directory.Role)
        {
            case WorkerRole.Main:
                DestinationVm.Remove(directory);
                break;
            case WorkerRole.Sub:
                SubRole.RemoveStore(directory.SplitId);
                break;
        }
    }

    private static void Check(WorkerSpec spec)
    {
        if (spec.RamBlocks.Count == 0 || spec.RamBlocks.Any(block => block.SizeBytes == 0 || block.SizeBytes % 4096 != 0 || block.SizeBytes > 1UL << 52))
        {
            throw new ArgumentException("The specification's RAM blocks are not whole pages.");
        }

        if (spec.Peers.Count(peer => peer.Role == WorkerRole.Sub) > 31)
        {
            throw new ArgumentException("A split VM has at most 31 sub-hosts.");
        }
    }

    /// <summary>As a crash of both would end them: what they have is in their files, and nobody starts the worker again.</summary>
    public static void Kill(WorkerDirectory directory)
    {
        Signal(directory.RunningProcess(Markers.SupervisorPid), SigKill, s_stopTimeout);
        Signal(directory.RunningProcess(Markers.WorkerPid), SigKill, s_stopTimeout);
    }

    /// <summary>The supervisor first, so that it does not start the worker again.</summary>
    private static void Stop(WorkerDirectory directory)
    {
        int supervisor = directory.RunningProcess(Markers.SupervisorPid);
        int worker = directory.RunningProcess(Markers.WorkerPid);
        Signal(supervisor, SigKill, TimeSpan.FromSeconds(2));
        if (!Signal(worker, SigTerm, s_stopTimeout))
        {
            Signal(worker, SigKill, s_stopTimeout);
        }
    }

    private static bool Signal(int processId, int signal, TimeSpan timeout)
    {
        if (processId <= 1)
        {
            return true;
        }

        try
        {
            using var process = PidFd.Open(processId);
            process.SendSignal(signal);
            return process.WaitExit(timeout);
        }
        catch (KernelException)
        {
            return true;
        }
    }
}
