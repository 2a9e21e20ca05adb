using FCtrans.Agent.Memory;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Migration;

public sealed class PlacementTests
{
    private const long Pages = 100_000;

    [Fact]
    public void KernelPagesGoToTheMainHostEvenWhenOthersHaveFilledTheirShare()
    {
        using var kernel = new PageBitmap(Pages);
        kernel.Fill(new PageRange(50_000, 100), true);
        using var placement = new Placement(Pages, kernel, null, mainRoomPages: 1_000, [Pages, Pages]);
        for (long page = 0; page < 50_100; page++)
        {
            placement.Assign(page, wasDirty: false, out _);
        }

        for (long page = 50_000; page < 50_100; page++)
        {
            Assert.Equal(Placement.Main, placement[page]);
        }

        Assert.True(placement.Placed(Placement.Main) <= 1_000);
    }

    [Fact]
    public void TheMainHostNeverGetsMoreThanItsRoomHoweverOftenPagesAreWritten()
    {
        using var kernel = new PageBitmap(Pages);
        using var placement = new Placement(Pages, kernel, null, mainRoomPages: 1_000, [Pages]);
        for (int round = 0; round < 3; round++)
        {
            for (long page = 0; page < 20_000; page++)
            {
                placement.Assign(page, wasDirty: round > 0, out _);
            }
        }

        Assert.InRange(placement.Placed(Placement.Main), 900, 1_000);
        Assert.Equal(20_000, placement.Placed(Placement.Main) + placement.Placed(Placement.FirstSub));
    }

    [Fact]
    public void HotPagesGoToTheMainHostWhereverTheyLie()
    {
        using var kernel = new PageBitmap(Pages);
        using var hot = new PageBitmap(Pages);
        kernel.Fill(new PageRange(70_000, 100), true);
        hot.Fill(new PageRange(60_000, 300), true);
        hot.Fill(new PageRange(70_000, 10), true);
        using var placement = new Placement(Pages, kernel, hot, mainRoomPages: 1_000, [Pages]);
        for (long page = 0; page < Pages; page++)
        {
            placement.Assign(page, wasDirty: false, out _);
        }

        Assert.All(Enumerable.Range(60_000, 300), page => Assert.Equal(Placement.Main, placement[page]));
        Assert.All(Enumerable.Range(70_000, 100), page => Assert.Equal(Placement.Main, placement[page]));

        // The room that is left is not wasted: the first of the others have it.
        Assert.All(Enumerable.Range(0, 400), page => Assert.Equal(Placement.Main, placement[page]));
        Assert.Equal(800, placement.Placed(Placement.Main));
    }

    [Fact]
    public void MoreHotPagesThanThereIsRoomForDoNotCrowdTheKernelOut()
    {
        using var kernel = new PageBitmap(Pages);
        using var hot = new PageBitmap(Pages);
        kernel.Fill(new PageRange(70_000, 100), true);
        hot.Fill(new PageRange(10_000, 50_000), true);
        using var placement = new Placement(Pages, kernel, hot, mainRoomPages: 1_000, [Pages]);
        for (long page = 0; page < Pages; page++)
        {
            placement.Assign(page, wasDirty: false, out _);
        }

        Assert.Equal(0, Enumerable.Range(0, 10_000).Count(page => placement[page] == Placement.Main));
        Assert.Equal(700, Enumerable.Range(10_000, 50_000).Count(page => placement[page] == Placement.Main));
        Assert.Equal(800, placement.Placed(Placement.Main));
    }

    [Fact]
    public void SubHostsShareByTheRoomTheyHave()
    {
        using var kernel = new PageBitmap(Pages);
        using var placement = new Placement(Pages, kernel, null, mainRoomPages: 0, [60_000, 20_000]);
        for (long page = 0; page < 40_000; page++)
        {
            placement.Assign(page, wasDirty: false, out _);
        }

        Assert.InRange(placement.Placed(Placement.FirstSub), 29_000, 31_000);
        Assert.InRange(placement.Placed(Placement.FirstSub + 1), 9_000, 11_000);
    }

    [Fact]
    public void APageOfASubHostThatIsWrittenAgainMovesToTheMainHostAndSaysWhereItWas()
    {
        using var kernel = new PageBitmap(Pages);
        using var placement = new Placement(Pages, kernel, null, mainRoomPages: 100, [Pages]);
        for (long page = 0; page < 1_000; page++)
        {
            placement.Assign(page, wasDirty: false, out _);
        }

        Assert.Equal(Placement.FirstSub, placement[999]);
        Assert.Equal(Placement.Main, placement.Assign(999, wasDirty: true, out byte before));
        Assert.Equal(Placement.FirstSub, before);
    }

    [Fact]
    public void AForgottenPageMakesRoom()
    {
        using var kernel = new PageBitmap(Pages);
        using var placement = new Placement(Pages, kernel, null, mainRoomPages: 0, [10]);
        for (long page = 0; page < 10; page++)
        {
            placement.Assign(page, wasDirty: false, out _);
        }

        Assert.Throws<MigrationException>(() => placement.Assign(10, wasDirty: false, out _));
        placement.Forget(3);
        Assert.Equal(Placement.FirstSub, placement.Assign(10, wasDirty: false, out byte before));
        Assert.Equal(Placement.None, before);
        Assert.Equal(10, placement.Placed(Placement.FirstSub));
    }
}
