using System.Diagnostics;

namespace FCtrans.Bench;

/// <summary>Takes samples on the calling thread, after runs that are not counted (compilation, caches).</summary>
internal static class Measure
{
    /// <summary>Milliseconds of each run.</summary>
    public static double[] Milliseconds(int runs, Action action, int warmUps = 2)
    {
        for (int i = 0; i < warmUps; i++)
        {
            action();
        }

        var samples = new double[runs];
        for (int i = 0; i < runs; i++)
        {
            long start = Stopwatch.GetTimestamp();
            action();
            samples[i] = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
        }

        return samples;
    }

    /// <summary>Managed bytes that each run allocates on this thread: 0 is what a hot path promises.</summary>
    public static double[] AllocatedBytes(int runs, Action action, int warmUps = 2)
    {
        for (int i = 0; i < warmUps; i++)
        {
            action();
        }

        var samples = new double[runs];
        for (int i = 0; i < runs; i++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            action();
            samples[i] = GC.GetAllocatedBytesForCurrentThread() - before;
        }

        return samples;
    }
}
