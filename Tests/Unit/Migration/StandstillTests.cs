using FCtrans.Agent.Migration;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Migration;

public sealed class StandstillTests
{
    [Fact]
    public void A_standstill_is_generous_and_yet_bounded()
    {
        Assert.Equal(30, Seconds(300, 0, 0));
        Assert.Equal(30, Seconds(300, 1000, 100_000));
        // Half of the downtime is for the pages.
        Assert.Equal(5 * 10, Seconds(20_000, 0, 0));
        // Pre-copy that does not converge sends everything in the end, and may.
        Assert.Equal((5 * 100) + 0.75, Seconds(300, 10_000_000, 100_000), 0.001);
        Assert.InRange(Seconds(300, long.MaxValue, 1), 1000, int.MaxValue);
    }

    [Fact]
    public void What_the_user_cancels_is_not_over()
    {
        using var cancel = new CancellationTokenSource();
        using var standstill = new Standstill(new WorkerSpec(), 0, 0, cancel.Token);
        standstill.WhenOver(failure => Assert.Fail(failure.Message));
        cancel.Cancel();
        Assert.True(standstill.Token.IsCancellationRequested);
        Assert.False(standstill.IsOver);
    }

    private static double Seconds(double downtimeMilliseconds, long pages, double pagesPerSecond) =>
        Standstill.Limit(new WorkerSpec { MaxDowntimeMilliseconds = downtimeMilliseconds }, pages, pagesPerSecond).TotalSeconds;
}
