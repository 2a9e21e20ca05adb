using System.Diagnostics;

namespace FCtrans.Agent.Migration;

/// <summary>Holds several senders together at or below a rate: each waits until its bytes are due. Thread-safe.</summary>
internal sealed class RateLimiter(long bytesPerSecond)
{
    // What may go at once after a pause, so that a late wake-up does not lose the link's time: 10 ms worth.
    private readonly double _burstSeconds = 0.010;
    private readonly Lock _gate = new();
    private double _due;
    private long _taken;

    /// <summary>Bytes paid for so far.</summary>
    public long Taken => Interlocked.Read(ref _taken);

    /// <summary>Returns when <paramref name="bytes"/>, which have just been sent, are paid for and more may follow.</summary>
    public void Take(long bytes)
    {
        double wait;
        Interlocked.Add(ref _taken, bytes);
        lock (_gate)
        {
            double now = (double)Stopwatch.GetTimestamp() / Stopwatch.Frequency;
            _due = Math.Max(_due, now - _burstSeconds) + ((double)bytes / bytesPerSecond);
            wait = _due - now;
        }

        if (wait > 0)
        {
            Thread.Sleep(TimeSpan.FromSeconds(wait));
        }
    }
}
