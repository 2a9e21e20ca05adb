using FCtrans.Agent.Introspection;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

public sealed class GuestCountersTests
{
    [Fact]
    public void A_kernel_without_symbols_does_not_tell_them()
    {
        using var guest = new SyntheticGuest(new());
        Assert.False(GuestCounters.TryRead(guest.Find(), out _));
    }

    [Fact]
    public void Far_more_free_pages_than_the_kernel_counts_are_not_believed()
    {
        var counters = new GuestCounters(1 << 20, 100_000);
        Assert.True(counters.Allows(100_000));
        // What comes free while a look lasts.
        Assert.True(counters.Allows(160_000));
        Assert.False(counters.Allows(200_000));
    }
}
