using System.Diagnostics;
using FCtrans.Agent.Migration;
using Xunit;

namespace FCtrans.Unit.Tests.Migration;

public sealed class LinkCostTests
{
    private const int Block = 64 << 10;
    private const long TicksToCompress = 1000;

    /// <summary>Half as long as compressing what it saves takes: on such a link it does not pay.</summary>
    private const long TicksToSend = TicksToCompress;

    [Fact]
    public void What_a_limit_makes_wait_is_the_links_time()
    {
        Assert.False(Pays(waitTicks: 0));
        Assert.True(Pays(waitTicks: 100 * TicksToCompress));
    }

    /// <returns>Whether most blocks are compressed: one now and then is done the other way.</returns>
    private static bool Pays(long waitTicks)
    {
        var cost = new LinkCost();
        int tried = 0;
        const int blocks = 1000;
        for (int i = 0; i < blocks; i++)
        {
            if (cost.ShouldCompress())
            {
                tried++;
            }

            // To half its size.
            cost.Compressed(Block, Block / 2, Stopwatch.GetTimestamp() - (TicksToCompress * 1000));
            cost.Sent(Block, TicksToSend * 1000);
            cost.Waited(waitTicks * 1000);
        }

        return tried > blocks / 2;
    }
}
