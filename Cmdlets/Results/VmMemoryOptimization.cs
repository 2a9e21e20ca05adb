using FCtrans.Contracts;

namespace FCtrans;

/// <summary>What one turn of Optimize-VmMemory came to.</summary>
public sealed class VmMemoryOptimization
{
    internal VmMemoryOptimization(KvmVm vm, OptimizedMemory turn)
    {
        VM = vm.Name;
        HostName = vm.HostName;
        Time = DateTimeOffset.Now;
        ulong page = turn.PageSizeBytes;
        FoundBytes = turn.FoundPages * page;
        FreedBytes = turn.FreedPages * page;
        FreedRemoteBytes = turn.FreedRemotePages * page;
        TakenBackBlocks = turn.TakenBackBlocks;
        Milliseconds = turn.Milliseconds;
        UsedBytes = turn.Memory.UsedPages * page;
        Method = turn.Memory.Method;
        Reason = turn.Memory.Reason;
    }

    /// <summary>The VM's name.</summary>
    public string VM { get; }

    /// <summary>The host it runs on.</summary>
    public string HostName { get; }

    /// <summary>When this was known here.</summary>
    public DateTimeOffset Time { get; }

    /// <summary>Free in the guest, and taking memory on the host.</summary>
    public ulong FoundBytes { get; }

    /// <summary>Given back to the host; 0 with -WhatIf.</summary>
    public ulong FreedBytes { get; }

    /// <summary>Of that: what only sub-hosts had, of a split VM.</summary>
    public ulong FreedRemoteBytes { get; }

    /// <summary>Blocks that the guest used again before they could be given back.</summary>
    public ulong TakenBackBlocks { get; }

    /// <summary>What the guest uses.</summary>
    public ulong UsedBytes { get; }

    /// <summary>How long it took, without the rests that a limit asks for.</summary>
    public double Milliseconds { get; }

    /// <summary><c>buddy</c>, or <c>never-touched-only</c>: the guest's free memory is not known, and none is given back; see <see cref="Reason"/>.</summary>
    public string Method { get; }

    /// <summary>Why the guest's free memory is not known, if so.</summary>
    public string Reason { get; }

    /// <inheritdoc/>
    public override string ToString() => VM;
}
