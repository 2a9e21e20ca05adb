namespace FCtrans.Unit.Tests;

/// <summary>What a step of ours allocates on its thread each time it is done.</summary>
internal static class Allocations
{
    /// <summary>The least of several times, in bytes: the runtime itself allocates there now and then, as when it compiles the step anew.</summary>
    public static long Of(Action step)
    {
        long least = long.MaxValue;
        for (int i = 0; i < 10 && least > 0; i++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            step();
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }

        return least;
    }
}
