namespace FCtrans.Bench.SplitVms;

/// <summary>What the agent on the main host takes of memory for itself while it serves a split VM, beside what it may.</summary>
internal sealed class AgentMemory
{
    /// <summary>So often it has looked for what the guest has free, where it does.</summary>
    private const ulong Looks = 3;

    private const double MebibytesForAll = 64;
    private const double BytesEachPage = 1;
    private const double BytesEachResidentPage = 8;

    private readonly List<double> _mebibytes = [];
    private double _allowed = double.PositiveInfinity;

    public void Take(SplitVm vm, bool looks = true)
    {
        vm.WaitFor(p => !looks || p.ReclaimTurns >= Looks);
        double pages = vm.Guest.MemoryBytes / 4096.0;
        // Of several VMs the one that allows the least counts for all.
        _allowed = Math.Min(_allowed, MebibytesForAll + (((pages * BytesEachPage) + (vm.Paging.ResidentPages * BytesEachResidentPage)) / (1 << 20)));
        _mebibytes.Add(vm.MainWorkerMebibytes);
    }

    public void Tell(BenchReport report, string name) =>
        report.Add($"{name}: agent at the main host", "MiB", _mebibytes, Comparison.AtMost, Math.Round(_allowed, 2));
}
