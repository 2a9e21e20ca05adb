using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>A split VM that touches nothing costs its main host nothing, for weeks.</summary>
public sealed class QuietTests
{
    private const double Seconds = 2;

    /// <summary>"A few" a second, of all threads of the process: the .NET runtime has timers too.</summary>
    private const long MostWakes = (long)(5 * Seconds);

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void A_pager_sleeps_while_its_guest_touches_nothing(int copies)
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, copies: copies);
        using var pager = lab.StartPagerProcess(resume: false);
        pager.WaitUntilPaging();
        lab.Guest.Run();
        PagingLab.WaitFor(() => pager.Figures()[0] > 3_000, "paging");
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
        // What is too much leaves still, second copies are made, and the runtime compiles: the first quiet stretch is what counts.
        long wakes = long.MaxValue;
        PagingLab.WaitFor(() => (wakes = pager.WakesWithin(TimeSpan.FromSeconds(Seconds))) <= MostWakes, $"it sleeps, but for {MostWakes} wake-ups in {Seconds} s");

        // It has not just hung: the next touch is answered.
        long before = pager.Figures()[0];
        lab.Guest.Run();
        PagingLab.WaitFor(() => pager.Figures()[0] > before + 1_000, "it goes on");
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
    }
}
