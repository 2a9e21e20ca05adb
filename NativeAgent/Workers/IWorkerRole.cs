using FCtrans.Agent.Tracking;
using FCtrans.Contracts;

namespace FCtrans.Agent.Workers;

/// <summary>What a worker process does: one of source, main and sub.</summary>
internal interface IWorkerRole : IDisposable
{
    /// <summary>Does the work until it has ended or <paramref name="stop"/> is set. Called once.</summary>
    /// <param name="ready">
    /// To be called once, with the data port (0 if it has none), when others may rely on this worker; by one that was started again when the guest
    /// has what it waited for, as far as that is known.
    /// </param>
    /// <param name="stop">Set by SIGTERM: leave things so that a worker started again can go on.</param>
    void Run(Action<int> ready, CancellationToken stop);

    /// <summary>After <see cref="Run"/>: the work has ended for good. False when it was only told to stop.</summary>
    bool IsOver { get; }

    /// <summary>After the end, which everybody can know by then: what is still to be said to others. Nothing of the VM is touched any more.</summary>
    void Linger(CancellationToken stop)
    {
    }

    /// <summary>Figures as they are now; any thread.</summary>
    WorkerStatus Snapshot();

    /// <summary>Gives the work up, if that can still be done, and returns when it has ended.</summary>
    /// <exception cref="InvalidOperationException">It is too late, or this role has nothing to give up; says why.</exception>
    void Abort(string reason);

    /// <summary>A sub-host joins the split VM: pages may leave for it from now on.</summary>
    /// <exception cref="InvalidOperationException">Not now, not here, or not so; says why. Then nothing has changed.</exception>
    void AddSubHost(AddSubHostRequest request) => throw new InvalidOperationException("Only a main host's worker pages a VM.");

    /// <summary>A sub-host leaves the split VM: its pages go elsewhere while the VM runs, or are lost if the host is gone.</summary>
    /// <exception cref="InvalidOperationException">Not now, not here, or not so; says why.</exception>
    void RemoveSubHost(string host, bool lost) => throw new InvalidOperationException("Only a main host's worker pages a VM.");

    /// <summary>Changes how the VM is paged.</summary>
    /// <exception cref="InvalidOperationException">Not now, not here, or not so; says why.</exception>
    void SetPaging(PagingSettings settings) => throw new InvalidOperationException("Only a main host's worker pages a VM.");

    /// <summary>The memory of the VM that is paged.</summary>
    /// <exception cref="InvalidOperationException">Not yet, or not here; says why.</exception>
    IVmMemory Memory => throw new InvalidOperationException("Only a main host's worker pages a VM.");
}
