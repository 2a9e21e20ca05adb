using System.Text;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Tracking;
using FCtrans.Unit.Tests.Introspection;
using Xunit;

namespace FCtrans.Unit.Tests.Paging;

/// <summary>Which pages of the guest's kernel stay, over the weeks that it lives.</summary>
public sealed class KernelPinsTests : IDisposable
{
    /// <summary>As <c>enum pageflags</c> of Linux 6.1 has them.</summary>
    private const int Lru = 4;
    private const int Private = 13;
    private const int Reserved = Private - 1;

    /// <summary>Behind all that the guest has for its own structures. From here on frames are counted.</summary>
    private const ulong FirstFrame = 0x2000;

    private readonly SyntheticGuest _guest = new(new() { LowBytes = 128 << 20, HighBytes = 0, LargeLeaves = false });
    private readonly UnusedPages _pages;
    private readonly PageBitmap _unused;
    private readonly PageBitmap _first;
    private readonly PageTable _table;
    private readonly PageHeat _heat;
    private readonly Lock _evictionGate = new();
    private readonly List<long[]> _kept = [];
    private readonly KernelPins _pins;

    public KernelPinsTests()
    {
        for (ulong frame = 0; frame < 0x8000; frame++)
        {
            SetFlags(frame, 1UL << Reserved);
        }

        _guest.Write(_guest.InfoPage, Info());
        _pages = UnusedPages.Open(_guest.Ram, mayMap: false);
        _unused = new(_guest.Ram.PageCount);
        _first = new(_guest.Ram.PageCount);
        _table = new(_guest.Ram.PageCount);
        _table.SetReceived(new(0, _table.PageCount));
        SetData(0, true);
        // As the source does.
        _pages.Refresh(_unused);
        _pages.KernelPages(_first, _unused);
        _heat = new(_table.PageCount, _first);
        _pins = new(_table, _heat, _evictionGate, pages => _kept.Add(All(pages)));
    }

    public void Dispose()
    {
        _heat.Dispose();
        _first.Dispose();
        _table.Dispose();
        _pages.Dispose();
        _unused.Dispose();
        _guest.Dispose();
    }

    [Fact]
    public void What_the_kernel_takes_stays_and_what_it_gives_up_does_not_after_so_many_looks()
    {
        Assert.True(IsPinned(0));
        for (int round = 1; round <= 3; round++)
        {
            ulong old = (ulong)round - 1;
            SetData(old, false);
            SetData(old + 1, true);
            // Of memory that it maps, a table.
            ulong table = _guest.Allocate(4096) >> 12;
            _guest.Map(0xffff_c900_0000_0000 + ((ulong)round << 30), 0x300_0000, leafLevel: 2);
            for (int look = 0; look < KernelPins.RestLooks; look++)
            {
                Look();
            }

            Assert.Equal((true, false, false), (IsPinned(old), IsPinned(old + 1), _heat.IsPinned(_guest.PageOf(table + 1))));
            Look();
            Assert.Equal((false, true, true), (IsPinned(old), IsPinned(old + 1), _heat.IsPinned(_guest.PageOf(table + 1))));
            Assert.Equal((round, round), (_pins.Renewals, _kept.Count));
            Assert.Equal(All(_heat.Pinned!), _kept[^1]);
        }

        Assert.True(_heat.IsPinned(_guest.PageOf(_guest.StructPage(0) >> 12)));
    }

    [Fact]
    public void A_page_whose_structure_is_elsewhere_stays_what_it_was()
    {
        // A compound page across the border of what is looked at together.
        const ulong Head = 1024 - 2;
        for (ulong i = 0; i < 4; i++)
        {
            _guest.Write(_guest.StructPage(FirstFrame + Head + i) + 8, BitConverter.GetBytes(i == 0 ? 0 : 0xffff_8880_0000_0001));
        }

        SetFlags(FirstFrame + Head, 0);
        Renew();
        Assert.Equal([true, true, true, true, false], Pinned(Head, 5));

        // The kernel gives it up, which can't be seen, and something else, which can.
        byte[] structures = SendAway(_guest.StructPage(FirstFrame + Head));
        SetData(0, false);
        SetData(2, true);
        SetData(Head + 4, true);
        Renew();
        Assert.Equal([true, true, true, true, true], Pinned(Head, 5));
        // What would look like data, for it reads as zeros, has not become any.
        Assert.Equal([false, false], Pinned(Head - 2, 2));
        Assert.Equal([false, false, true], Pinned(0, 3));

        BringBack(_guest.StructPage(FirstFrame + Head), structures);
        SetFlags(FirstFrame + Head, 1UL << Lru);
        Renew();
        Assert.Equal([false, false, false, false, true], Pinned(Head, 5));
        Assert.Equal([false, false, true], Pinned(0, 3));
    }

    [Fact]
    public void Nothing_is_given_up_while_a_table_that_leads_on_is_elsewhere()
    {
        // A table of two levels above a leaf, which only the search follows.
        ulong table = _guest.Allocate(4096);
        _guest.Map(0xffff_c900_0000_0000, 0x300_0000, leafLevel: 1);
        ulong upper = table + 4096;
        ulong lower = upper + 4096;
        Renew();
        Assert.True(_heat.IsPinned(_guest.PageOf(upper >> 12)) && _heat.IsPinned(_guest.PageOf(lower >> 12)));

        byte[] content = SendAway(upper);
        SetData(0, false);
        SetData(1, true);
        Renew();
        Assert.Equal((true, true), (IsPinned(0), IsPinned(1)));
        Assert.True(_heat.IsPinned(_guest.PageOf(lower >> 12)));

        BringBack(upper, content);
        Renew();
        Assert.Equal((false, true), (IsPinned(0), IsPinned(1)));
        Assert.True(_heat.IsPinned(_guest.PageOf(lower >> 12)));
    }

    [Fact]
    public void Another_kernel_is_looked_at_at_once_and_what_was_before_it_does_not_stay()
    {
        Look();
        _guest.Write(_guest.InfoPage, new byte[4096]);
        Assert.NotEqual(UnusedFigures.Buddy, _pages.Refresh(_unused).Method);
        _pins.Look(_pages, _guest.Ram, _unused);
        Assert.Equal(0, _pins.Renewals);
        SetData(0, false);
        SetData(1, true);
        _guest.Write(0x5000, [.. Info(), .. "KERNELOFFSET=2000000\n"u8]);
        // A part of what the old one had can't be seen.
        byte[] structures = SendAway(_guest.StructPage(FirstFrame));
        // A search is not repeated at once: wait until it is due.
        Assert.True(SpinWait.SpinUntil(() => _pages.Refresh(_unused).Method == UnusedFigures.Buddy, TimeSpan.FromSeconds(30)));
        _pins.Look(_pages, _guest.Ram, _unused);
        Assert.Equal((1, false), (_pins.Renewals, IsPinned(0)));
        Assert.Equal((true, false), (_heat.IsPinned(5), _heat.IsPinned(_guest.PageOf(_guest.InfoPage >> 12))));
        BringBack(_guest.StructPage(FirstFrame), structures);
        Renew();
        Assert.Equal((2, false, true), (_pins.Renewals, IsPinned(0), IsPinned(1)));
    }

    /// <summary>The kernel's own page was away for a moment, so that it was not believed any more.</summary>
    [Fact]
    public void The_same_kernel_found_again_keeps_what_can_not_be_seen()
    {
        Look();
        byte[] info = SendAway(_guest.InfoPage);
        Assert.NotEqual(UnusedFigures.Buddy, _pages.Refresh(_unused).Method);
        BringBack(_guest.InfoPage, info);
        SendAway(_guest.StructPage(FirstFrame));
        Assert.True(SpinWait.SpinUntil(() => _pages.Refresh(_unused).Method == UnusedFigures.Buddy, TimeSpan.FromSeconds(30)));
        _pins.Look(_pages, _guest.Ram, _unused);
        Assert.Equal((1, true), (_pins.Renewals, IsPinned(0)));
    }

    [Fact]
    public void A_new_set_takes_the_place_of_the_old_one_between_two_steps_of_the_evictor()
    {
        SetData(0, false);
        SetData(1, true);
        Thread looks;
        lock (_evictionGate)
        {
            looks = new Thread(Renew);
            looks.Start();
            Assert.True(SpinWait.SpinUntil(() => looks.ThreadState.HasFlag(ThreadState.WaitSleepJoin), TimeSpan.FromSeconds(30)));
            Assert.Equal((true, false), (IsPinned(0), IsPinned(1)));
        }

        looks.Join();
        Assert.Equal((false, true), (IsPinned(0), IsPinned(1)));
    }

    private byte[] Info() => Encoding.ASCII.GetBytes(_guest.InfoText(
        ("OFFSET(page.flags)", "0"), ("OFFSET(page.compound_head)", "8"), ("NUMBER(PG_lru)", $"{Lru}"), ("NUMBER(PG_private)", $"{Private}")));

    private bool[] Pinned(ulong frame, int count) => [.. Enumerable.Range(0, count).Select(i => IsPinned(frame + (ulong)i))];

    private bool IsPinned(ulong frame) => _heat.IsPinned(_guest.PageOf(FirstFrame + frame));

    private void SetData(ulong frame, bool isData) => SetFlags(FirstFrame + frame, isData ? 0 : 1UL << Lru);

    private void SetFlags(ulong frame, ulong flags) => _guest.Write(_guest.StructPage(frame), BitConverter.GetBytes(flags));

    private void Look()
    {
        Assert.Equal(UnusedFigures.Buddy, _pages.Refresh(_unused).Method);
        _pins.Look(_pages, _guest.Ram, _unused);
    }

    /// <summary>Looks until there is a new set.</summary>
    private void Renew()
    {
        for (long before = _pins.Renewals; _pins.Renewals == before;)
        {
            Look();
        }
    }

    /// <summary>The page there is at a sub-host, and a hole here. Returns its content.</summary>
    private byte[] SendAway(ulong physical)
    {
        physical &= ~0xfffUL;
        byte[] content = new byte[4096];
        Assert.True(_guest.Memory.TryRead(new GuestPhysicalAddress(physical), content));
        _guest.PunchHole(physical, 4096);
        _table.SetRemote(new(_guest.PageOf(physical >> 12), 1), 0);
        return content;
    }

    private void BringBack(ulong physical, byte[] content)
    {
        physical &= ~0xfffUL;
        _guest.Write(physical, content);
        _table.SetReceived(new(_guest.PageOf(physical >> 12), 1));
    }

    private static long[] All(PageBitmap pages) => [.. Enumerable.Range(0, (int)pages.PageCount).Select(page => (long)page).Where(page => pages[page])];
}
