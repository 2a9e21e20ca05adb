using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Reclaim;
using FCtrans.Agent.Tracking;
using FCtrans.Contracts;

namespace FCtrans.Agent.Rpc;

/// <summary>
/// The calls about a VM's memory, the same for a VM on one host (asked of its agent) and for a split one (asked of its main host's worker).
/// Each blocks its thread; whoever reads the answers slowly slows the looks down instead of filling memory.
/// </summary>
internal static class MemoryCalls
{
    /// <summary>A change of more runs is told by its figures alone from there on.</summary>
    private const int MostChanges = 4096;

    private const int RangesInPart = 2048;
    private const int MostRanges = 1 << 20;
    private const int ShortestIntervalMilliseconds = 100;
    private const int LongestIntervalMilliseconds = 3_600_000;

    // Each of these is bound to end: another client of the monitor goes, an address space settles.
    private const int Attempts = 5;

    public static UnusedMemory Look(IVmMemory memory, string vm)
    {
        using var set = memory.NewSet();
        return ToContract(vm, memory.Look(set, null), memory.ReclaimedPages);
    }

    /// <summary>Looks until <paramref name="stop"/> comes.</summary>
    public static void Watch(IVmMemory memory, WatchUnusedMemoryRequest request, Action<UnusedMemory> looked, CancellationToken stop)
    {
        int interval = Interval(request.IntervalMilliseconds);
        using var set = memory.NewSet();
        int failures = 0;
        do
        {
            var changes = request.WithChanges ? new Changes() : null;
            UnusedFigures figures;
            try
            {
                figures = memory.Look(set, changes);
                failures = 0;
            }
            catch (MonitorException) when (++failures < Attempts)
            {
                // A monitor has one client at a time: another's look or command is under way.
                continue;
            }

            var answer = ToContract(request.Vm, figures, memory.ReclaimedPages);
            answer.BecameUsedPages = (ulong)set.BecameUsed;
            answer.BecameUnusedPages = (ulong)set.BecameUnused;
            if (changes is not null)
            {
                answer.Changes.AddRange(changes.Found);
                answer.MoreChanges = changes.More;
            }

            looked(answer);
        }
        while (!stop.WaitHandle.WaitOne(interval));
    }

    /// <exception cref="ArgumentException">There is no such granularity.</exception>
    public static void Map(IVmMemory memory, GetMemoryMapRequest request, Action<MemoryMapPart> drawn, CancellationToken stop)
    {
        if (request.GranularityBytes < PageIndex.PageSize || request.GranularityBytes % PageIndex.PageSize != 0 || request.GranularityBytes > 1UL << 50)
        {
            throw new ArgumentException("The granularity is a multiple of 4096 bytes.", nameof(request));
        }

        using var set = memory.NewSet();
        var figures = memory.Look(set, null);
        // All of it first: what draws it may hold what others wait for.
        var ranges = new List<MemoryMapRange>();
        var head = memory.Map(set, request, range =>
        {
            stop.ThrowIfCancellationRequested();
            if (ranges.Count == MostRanges)
            {
                throw new InvalidOperationException($"Its map has more than {MostRanges} parts. Ask for a coarser granularity.");
            }

            ranges.Add(range);
        });
        head.Memory = ToContract(request.Vm, figures, memory.ReclaimedPages);
        var part = new MemoryMapPart { Head = head };
        for (int first = 0; first < ranges.Count; first += RangesInPart)
        {
            part.Ranges.AddRange(ranges.GetRange(first, Math.Min(RangesInPart, ranges.Count - first)));
            drawn(part);
            part = new();
        }
    }

    /// <summary>Gives free memory back, turn by turn, until it is done or <paramref name="stop"/> comes.</summary>
    public static void Optimize(IVmMemory memory, OptimizeMemoryRequest request, Action<OptimizedMemory> turned, CancellationToken stop)
    {
        var limits = new ReclaimLimits
        {
            WhatIf = request.WhatIf,
            BytesPerSecond = (long)Math.Min(request.BytesPerSecond, long.MaxValue),
            ProcessorPercent = request.ProcessorPercent == 0 ? 100 : Math.Clamp(request.ProcessorPercent, 1, 100),
        };
        int interval = Interval(request.IntervalMilliseconds);
        int failures = 0;
        do
        {
            ReclaimFigures figures;
            UnusedFigures seen;
            try
            {
                (figures, seen) = memory.Turn(limits, settledOnly: request.Continuous, stop);
                failures = 0;
            }
            catch (MonitorException) when (request.Continuous && ++failures < Attempts)
            {
                continue;
            }

            turned(new OptimizedMemory
            {
                PageSizeBytes = PageIndex.PageSize,
                FoundPages = (ulong)figures.FoundPages,
                FreedPages = (ulong)figures.FreedPages,
                FreedRemotePages = (ulong)figures.FreedRemotePages,
                TakenBackBlocks = (ulong)figures.TakenBack,
                Milliseconds = figures.Milliseconds,
                Memory = ToContract(request.Vm, seen, memory.ReclaimedPages),
            });
        }
        while (request.Continuous && !stop.WaitHandle.WaitOne(interval));
    }

    private static int Interval(int milliseconds) => Math.Clamp(milliseconds, ShortestIntervalMilliseconds, LongestIntervalMilliseconds);

    private static UnusedMemory ToContract(string vm, UnusedFigures found, long reclaimedPages) => new()
    {
        Vm = vm,
        PageSizeBytes = PageIndex.PageSize,
        TotalPages = (ulong)found.Total,
        NeverTouchedPages = (ulong)found.NeverTouched,
        FreePages = (ulong)found.Free,
        BalloonedPages = (ulong)found.Ballooned,
        UsedPages = (ulong)found.Used,
        GuestKernel = found.GuestKernel,
        Method = found.Method,
        Reason = found.Reason,
        ScanMilliseconds = found.ScanMilliseconds,
        FindMilliseconds = found.FindMilliseconds,
        UnixMilliseconds = DateTimeOffset.UtcNow.ToUnixTimeMilliseconds(),
        ReclaimedPages = (ulong)reclaimedPages,
    };

    private sealed class Changes : IMemoryUseSink
    {
        public List<MemoryChange> Found { get; } = [];

        public bool More { get; private set; }

        public void Changed(PageRange pages, MemoryUse use)
        {
            if (Found.Count == MostChanges)
            {
                More = true;
                return;
            }

            Found.Add(new()
            {
                FirstPage = (ulong)pages.First,
                Pages = (ulong)pages.Count,
                Kind = use switch
                {
                    MemoryUse.NeverTouched => MemoryKind.NeverTouched,
                    MemoryUse.Free => MemoryKind.Free,
                    MemoryUse.Ballooned => MemoryKind.Ballooned,
                    _ => MemoryKind.Used,
                },
            });
        }
    }
}
