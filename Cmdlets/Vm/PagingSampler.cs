using System.Diagnostics;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Makes samples out of looks at main hosts: what happened from one to the next, for each split VM that was there at both.</summary>
internal sealed class PagingSampler(Func<KvmHost, string, bool> isWanted)
{
    private readonly Dictionary<string, (VmRemotePaging Paging, long At)> _before = [];

    /// <summary>What a host has told just now of the VMs that run there, and what has happened since the look before if there was one.</summary>
    /// <param name="met">Gets the wanted VMs' names.</param>
    public IEnumerable<(VmRemotePaging Now, VmRemotePagingSample? Since)> Take(KvmHost host, IEnumerable<WorkerSummary> workers, HashSet<string>? met = null)
    {
        foreach (WorkerSummary worker in workers.Where(w => w.Spec?.Role == WorkerRole.Main && w.Status?.Paging is not null && isWanted(host, w.Spec.VmName)))
        {
            met?.Add(worker.Spec.VmName);
            var now = new VmRemotePaging(host, worker.Spec, worker.Status.Paging, worker.Running);
            long at = Stopwatch.GetTimestamp();
            bool seen = _before.TryGetValue(now.SplitId, out (VmRemotePaging Paging, long At) before);
            _before[now.SplitId] = (now, at);
            if (now.IsVmRunning && worker.Running)
            {
                yield return (now, seen ? new VmRemotePagingSample(before.Paging, now, DateTime.Now, Stopwatch.GetElapsedTime(before.At, at).TotalSeconds) : null);
            }
        }
    }
}
