using FCtrans.Agent.Migration;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Migration;

public sealed class ConvergenceTests
{
    private const double PagesPerSecond = 100_000;

    private readonly WorkerSpec _spec = new() { MaxDowntimeMilliseconds = 100, MaxRounds = 10 };

    [Fact]
    public void It_switches_over_as_soon_as_the_rest_fits_half_of_the_downtime()
    {
        var convergence = new Convergence(_spec, mayLeave: true);
        Assert.Equal(NextStep.Round, convergence.After(1, 5_001, PagesPerSecond, false));
        Assert.Equal(NextStep.SwitchOver, convergence.After(2, 4_999, PagesPerSecond, false));
        Assert.Equal(NextStep.SwitchOver, new Convergence(_spec, true).After(1, 0, 0, false));
    }

    [Fact]
    public void It_leaves_the_rest_when_rounds_no_longer_shrink_and_not_for_one_bad_round()
    {
        var convergence = new Convergence(_spec, mayLeave: true);
        Assert.Equal(NextStep.Round, convergence.After(1, 80_000, PagesPerSecond, false));
        Assert.Equal(NextStep.Round, convergence.After(2, 78_000, PagesPerSecond, false));
        Assert.Equal(NextStep.Round, convergence.After(3, 30_000, PagesPerSecond, false));
        Assert.True(convergence.EstimatedSecondsLeft > 0.3);
        Assert.Equal(NextStep.Round, convergence.After(4, 30_000, PagesPerSecond, false));
        Assert.True(convergence.EstimatedSecondsLeft < 0);
        Assert.Equal(NextStep.Leave, convergence.After(5, 29_000, PagesPerSecond, false));
    }

    [Fact]
    public void The_users_limits_end_pre_copy_and_without_leaving_the_rest_is_sent()
    {
        Assert.Equal(NextStep.Leave, new Convergence(_spec, true).After(1, 80_000, PagesPerSecond, limitIsOver: true));
        Assert.Equal(NextStep.Leave, new Convergence(_spec, true).After(10, 80_000, PagesPerSecond, false));
        var all = new Convergence(_spec, mayLeave: false);
        for (int round = 1; round < 10; round++)
        {
            Assert.Equal(NextStep.Round, all.After(round, 80_000, PagesPerSecond, false));
        }

        Assert.Equal(NextStep.SwitchOver, all.After(10, 80_000, PagesPerSecond, false));
    }
}
