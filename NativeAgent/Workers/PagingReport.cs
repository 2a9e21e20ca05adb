using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Contracts;

namespace FCtrans.Agent.Workers;

/// <summary>A pager's figures in the form of the contract.</summary>
internal static class PagingReport
{
    public static PagingStatus Of(PagingFigures figures)
    {
        var status = new PagingStatus
        {
            State = figures.State,
            Error = figures.Error ?? "",
            LimitBytes = (ulong)figures.LimitPages << PageIndex.PageShift,
            ResidentPages = (ulong)figures.ResidentPages,
            PackedPages = (ulong)figures.PackedPages,
            UnpackedPages = (ulong)figures.Unpacked,
            PeakResidentPages = (ulong)figures.PeakResidentPages,
            UnusedPages = (ulong)figures.UnusedPages,
            LostPages = (ulong)figures.LostPages,
            PageIns = (ulong)figures.PageIns,
            PageInsOfFree = (ulong)figures.PageInsOfFree,
            PageOuts = (ulong)figures.PageOuts,
            CleanDrops = (ulong)figures.CleanDrops,
            UnusedFaults = (ulong)figures.UnusedFaults,
            WriteProtectFaults = (ulong)figures.WriteProtectFaults,
            SpuriousFaults = (ulong)figures.SpuriousFaults,
            Errors = (ulong)figures.Errors,
            BytesIn = (ulong)figures.BytesIn,
            BytesOut = (ulong)figures.BytesOut,
            PrefetchedPages = (ulong)figures.Prefetched,
            PrefetchHits = (ulong)figures.PrefetchHits,
            PrefetchMisses = (ulong)figures.PrefetchMisses,
            OutstandingFaults = (uint)figures.Outstanding,
            TakenBack = (ulong)figures.TakenBack,
            Copies = new CopiesStatus { Wanted = (uint)figures.Copies, ShortPages = (ulong)figures.ShortPages, Made = (ulong)figures.CopiesMade },
            ZeroDrops = (ulong)figures.ZeroDrops,
            RemoteLatency = Of(figures.RemoteLatency),
            UnusedLatency = Of(figures.UnusedLatency),
            RemoteLatencyTimeline = Of(figures.RemoteTimeline),
        };
        status.RemotePages.AddRange(figures.RemotePages.Select(pages => (ulong)pages));
        status.PageInsBySubHost.AddRange(figures.PageInsBySub.Select(pages => (ulong)pages));
        status.PageOutsBySubHost.AddRange(figures.PageOutsBySub.Select(pages => (ulong)pages));
        return status;
    }

    private static FaultLatencyTimeline Of(LatencyTimelineFigures figures)
    {
        var timeline = new FaultLatencyTimeline
        {
            ColumnSeconds = figures.ColumnSeconds,
            BeganUnixMilliseconds = DateTimeOffset.UtcNow.AddSeconds(-figures.ElapsedSeconds).ToUnixTimeMilliseconds(),
        };
        foreach (long[] counts in figures.Columns)
        {
            var column = new FaultLatencyColumn();
            int first = Array.FindIndex(counts, c => c != 0);
            if (first >= 0)
            {
                int last = Array.FindLastIndex(counts, c => c != 0);
                column.FirstRow = (uint)first;
                column.Counts.AddRange(counts[first..(last + 1)].Select(c => (ulong)c));
            }

            timeline.Columns.Add(column);
        }

        return timeline;
    }

    private static FaultLatency Of(LatencyFigures figures) => new()
    {
        Count = (ulong)figures.Count,
        P50Microseconds = figures.P50,
        P90Microseconds = figures.P90,
        P99Microseconds = figures.P99,
        P999Microseconds = figures.P999,
        MaxMicroseconds = figures.Max,
    };
}
