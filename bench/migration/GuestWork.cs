using System.Diagnostics;
using FCtrans.Lab;

namespace FCtrans.Bench.Migrations;

/// <summary>What the guest's own program gets done, told by itself: pages a second over some seconds in the middle of a migration.</summary>
internal sealed class GuestWork(LabGuest guest)
{
    private static readonly TimeSpan s_before = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_measured = TimeSpan.FromSeconds(3);

    private Thread? _thread;

    public double PerSecond { get; private set; }

    /// <summary>Begins to measure a second from now, on a thread of its own: the migration has to last longer than it takes.</summary>
    public void Begin()
    {
        _thread = new Thread(() =>
        {
            Thread.Sleep(s_before);
            long pages = Pages();
            long at = Stopwatch.GetTimestamp();
            Thread.Sleep(s_measured);
            PerSecond = (Pages() - pages) / Stopwatch.GetElapsedTime(at).TotalSeconds;
        });
        _thread.Start();
    }

    public void End() => _thread?.Join();

    private long Pages()
    {
        var stat = guest.Invoke("stat");
        return stat["rewritten"] + stat["pages_verified"];
    }
}
