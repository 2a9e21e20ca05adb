using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Reclaim;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

/// <summary>What reclaim drops and what it lets go, when the guest changes its mind at each step.</summary>
public sealed class ReclaimerTests
{
    private const ulong High = SyntheticGuest.HighStart >> 12;

    [Fact]
    public void Free_blocks_are_dropped_and_nothing_else()
    {
        var (figures, target) = Reclaim(static (_, _) => { });
        Assert.Equal(2048 + 8, figures.FreedPages);
        Assert.Equal(2048 + 8, target.Dropped);
        Assert.Equal(0, target.Frozen);
        Assert.Equal(0, target.Held);
    }

    [Fact]
    public void A_block_that_the_guest_takes_before_its_head_is_frozen_stays()
    {
        var (figures, target) = Reclaim(static (guest, target) => target.Freezing = () => guest.SetType(High + 1024, uint.MaxValue));
        Assert.Equal(1024 + 8, figures.FreedPages);
        Assert.Equal(1, figures.TakenBack);
        Assert.Equal(1024 + 8, target.StillFree);
        Assert.Equal(1024, target.LetGoPages);
        Assert.Equal(0, target.Frozen + target.Held);
    }

    [Fact]
    public void A_block_that_was_merged_or_split_meanwhile_stays()
    {
        var (figures, _) = Reclaim(static (guest, target) => target.Freezing = () => guest.SetFree(High + 1024, 9));
        Assert.Equal(1024 + 8, figures.FreedPages);
        Assert.Equal(1, figures.TakenBack);
    }

    [Fact]
    public void Nothing_is_dropped_when_the_processors_run_something_else_by_then()
    {
        var (figures, target) = Reclaim(static (_, target) => target.Freezing = () => target.Root = 0x5000);
        Assert.Equal(0, figures.FreedPages);
        Assert.True(figures.Uncertain > 0);
        Assert.Equal(2048 + 8, target.LetGoPages);
        Assert.Equal(0, target.Frozen + target.Held);
    }

    [Fact]
    public void Pages_whose_heads_can_not_be_frozen_stay()
    {
        var (figures, target) = Reclaim(static (_, target) => target.Refuses = true);
        Assert.Equal(0, figures.FreedPages);
        Assert.Equal(0, target.Dropped + target.Held + target.LetGoPages);
    }

    [Fact]
    public void Only_settled_blocks_are_dropped_when_that_is_asked()
    {
        var (figures, _) = Reclaim(static (guest, target) => target.FreeBefore = new(PageOf(guest, High), 1024 + 1023));
        Assert.Equal(1024, figures.FreedPages);
    }

    [Fact]
    public void A_block_that_another_host_has_a_part_of_does_not_wait_until_it_is_settled()
    {
        var (figures, _) = Reclaim(static (guest, target) =>
        {
            target.FreeBefore = new(PageOf(guest, High), 1024 + 1023);
            target.Elsewhere.Add(PageOf(guest, High + 4096));
        });
        Assert.Equal(1024 + 8, figures.FreedPages);
    }

    [Fact]
    public void The_loop_allocates_nothing()
    {
        using var guest = new SyntheticGuest(new());
        for (ulong block = 0; block < 300; block++)
        {
            guest.SetFree(High + (block * 8), 2);
        }

        guest.SetFree(High + 4096, 10);
        var kernel = guest.Find();
        var processors = new[] { new GuestProcessor(0x8000_0001, guest.Root, 0x20, 0x500) };
        using var check = new ProcessorCheck(() => processors, limitMilliseconds: 60_000);
        using var scanner = new FreePageScanner(kernel, guest.Ram, mayMap: false);
        using var free = new PageBitmap(guest.Ram.PageCount);
        var target = new Target { DropsWhileAsking = true };
        var reclaimer = new Reclaimer(guest.Ram, target, check);
        var limits = new ReclaimLimits();
        long dropped = 0;
        Assert.Equal(0, Allocations.Of(() =>
        {
            free.Clear();
            reclaimer.Begin(kernel, limits, null, CancellationToken.None);
            scanner.Visit(free, reclaimer);
            dropped = reclaimer.Finish().FreedPages;
        }));
        Assert.Equal((300 * 4) + 1024, dropped);
    }

    private static long PageOf(SyntheticGuest guest, ulong frame)
    {
        Assert.True(guest.Ram.TryPageOf(new GuestPhysicalAddress(frame << 12), out long page));
        return page;
    }

    /// <summary>By a target that drops each batch at once, and by one that drops it while the next one's question is under way: it comes to the same.</summary>
    private static (ReclaimFigures Figures, Target Target) Reclaim(Action<SyntheticGuest, Target> prepare)
    {
        var (figures, target) = Reclaim(prepare, dropsWhileAsking: false);
        var (others, other) = Reclaim(prepare, dropsWhileAsking: true);
        Assert.Equal(figures with { Milliseconds = 0 }, others with { Milliseconds = 0 });
        Assert.Equal((target.Frozen, target.Held, target.Dropped, target.LetGoPages, target.StillFree), (other.Frozen, other.Held, other.Dropped, other.LetGoPages, other.StillFree));
        return (figures, target);
    }

    private static (ReclaimFigures Figures, Target Target) Reclaim(Action<SyntheticGuest, Target> prepare, bool dropsWhileAsking)
    {
        using var guest = new SyntheticGuest(new());
        guest.SetFree(High, 10);
        guest.SetFree(High + 1024, 10);
        guest.SetFree(High + 4096, 3);
        var kernel = guest.Find();
        var target = new Target { Root = guest.Root, DropsWhileAsking = dropsWhileAsking };
        prepare(guest, target);
        using var check = new ProcessorCheck(() => [new GuestProcessor(0x8000_0001, target.Root, 0x20, 0x500)], limitMilliseconds: 60_000);
        using var scanner = new FreePageScanner(kernel, guest.Ram, mayMap: false);
        using var free = new PageBitmap(guest.Ram.PageCount);
        var reclaimer = new Reclaimer(guest.Ram, target, check);
        using var freeBefore = target.FreeBefore is null ? null : new PageBitmap(guest.Ram.PageCount);
        freeBefore?.Fill(target.FreeBefore!.Value, true);
        reclaimer.Begin(kernel, new(), freeBefore, CancellationToken.None, free);
        scanner.Visit(free, reclaimer);
        var figures = reclaimer.Finish();
        target.StillFree = free.Count();
        return (figures, target);
    }

    /// <summary>Keeps account, and lets the test act as the guest at the moment before the first head is frozen.</summary>
    private sealed class Target : IReclaimTarget
    {
        public Action? Freezing { get; set; }

        public ulong Root { get; set; }

        /// <summary>Pages that were free at the last look at them.</summary>
        public long StillFree { get; set; }

        /// <summary>First pages of blocks that another host has a part of.</summary>
        public HashSet<long> Elsewhere { get; } = [];

        /// <summary>What the guest had free before; null: that is not asked.</summary>
        public PageRange? FreeBefore { get; set; }

        public bool Refuses { get; set; }

        public long Frozen { get; private set; }

        public long Held { get; private set; }

        public long Dropped { get; private set; }

        public long LetGoPages { get; private set; }

        public long BatchPages => 1024;

        public long PiecePages => 256;

        public bool DropsWhileAsking { get; init; }

        public long Count(PageRange block) => block.Count;

        public bool IsElsewhere(PageRange block) => Elsewhere.Contains(block.First);

        public bool Freeze(long structPages)
        {
            Freezing?.Invoke();
            Freezing = null;
            Frozen += Refuses ? 0 : 1;
            return !Refuses;
        }

        public void Thaw(long structPages) => Frozen--;

        public bool Hold(PageRange pages)
        {
            Held += pages.Count;
            return true;
        }

        public long Drop(PageRange pages)
        {
            // No Assert: it would allocate, and one of the tests counts that.
            if (pages.Count is < 1 or > 256)
            {
                throw new ArgumentOutOfRangeException(nameof(pages));
            }

            Held -= pages.Count;
            Dropped += pages.Count;
            return pages.Count;
        }

        public void LetGo(PageRange pages)
        {
            Held -= pages.Count;
            LetGoPages += pages.Count;
        }
    }
}
