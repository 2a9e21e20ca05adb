using System.Diagnostics;
using FCtrans.Lab;

namespace FCtrans.Bench.Migrations;

/// <summary>What the guest's own program gets done, told by itself: pages rewritten a second between two moments.</summary>
internal sealed class GuestWork(LabGuest guest)
{
    private long _pages;
    private long _at;

    public double PerSecond { get; private set; }

    public void Begin() => (_pages, _at) = (Pages(), Stopwatch.GetTimestamp());

    public void End() => PerSecond = (Pages() - _pages) / Stopwatch.GetElapsedTime(_at).TotalSeconds;

    private long Pages()
    {
        var stat = guest.Invoke("stat");
        return stat["rewritten"] + stat["pages_verified"];
    }
}
