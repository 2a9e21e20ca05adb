using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Storage;
using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>Pages that came packed with the VM and lie so on its main host until somebody needs them.</summary>
public sealed class PackedTests
{
    private const int Used = 3_000;

    [Fact]
    public void They_take_hardly_any_memory_come_when_they_are_touched_and_leave_like_others()
    {
        using var lab = new PagingLab(pages: 4_000, used: Used, limit: 1_000);
        lab.Pack(Used);
        lab.StartPager();
        Assert.Equal(Used, lab.Pager.Snapshot().PackedPages);
        Assert.Equal(0, lab.Pager.Snapshot().ResidentPages);
        Assert.Equal(Used / PackedPages.SlotsPerPage, lab.Table.LocalPages);
        Assert.Equal([7L, 0, 0], lab.Guest.Ask("read 7", "read"));
        Assert.Equal([8L], lab.Guest.Ask("write 8", "wrote"));
        Assert.Equal([8L, 0, 0], lab.Guest.Ask("read 8", "read"));
        Assert.Equal(Used - 2, lab.Pager.Snapshot().PackedPages);
        Assert.Equal(2, lab.Pager.Snapshot().ResidentPages);
        Assert.False(lab.Packed.Has(7));
        Assert.Equal(2 * PageIndex.PageSize, lab.ResidentBytes());

        lab.Guest.Run();
        PagingLab.WaitFor(() => lab.Pager.Snapshot() is { PageIns: > 3_000, PackedPages: 0 }, "all have come, and some have left and come back");
        Assert.Equal((Used, 0, 0), lab.Guest.StopAndVerify());
        Assert.Equal(Used, lab.Pager.Snapshot().Unpacked);
        using var file = SparseFile.Open(Path.Combine(lab.Directory, PackedPages.FileName), write: false);
        Assert.Equal(0, SparseFile.AllocatedBytes(file));
        Assert.Equal("paging", lab.Pager.Snapshot().State);
        Assert.Equal(0, lab.Pager.Snapshot().Errors);
    }

    /// <summary>Each in a page of its own of their file, they take more than may be here, and nothing else is here that could leave.</summary>
    [Fact]
    public void What_lies_packed_makes_room_when_nothing_else_can()
    {
        const int packed = 500;
        using var lab = new PagingLab(pages: 8_000, used: packed * PackedPages.SlotsPerPage, limit: 300);
        lab.Pack(packed, oneIn: PackedPages.SlotsPerPage);
        using (var before = PackedPages.Open(lab.Directory, lab.Pages))
        {
            Assert.Equal(packed, before.FilePages);
        }

        lab.StartPager();
        lab.Guest.Run();
        PagingLab.WaitFor(() => lab.Pager.Snapshot() is { PageIns: > 2_000, PageOuts: > 2_000 }, "paging");
        Assert.Equal((packed * PackedPages.SlotsPerPage, 0, 0), lab.Guest.StopAndVerify());
        PagingLab.WaitFor(() => lab.Table.LocalPages <= lab.Limit, "it is within its limit");
    }

    /// <summary>Killed where the RAM file has the page and the other file still has it too: what the guest has written since counts.</summary>
    [Fact]
    public void A_pager_killed_before_it_forgot_the_packed_page_is_followed_by_one_that_takes_the_other()
    {
        using var lab = new PagingLab(pages: 4_000, used: Used, limit: 1_000);
        lab.Pack(Used);
        using (var first = lab.StartPagerProcess(resume: false, "main.unpacked=park"))
        {
            first.WaitUntilPaging();
            // It goes on as soon as the page is there.
            lab.Guest.Ask("write 5", "wrote");
            PagingLab.WaitFor(() => File.Exists(Path.Combine(lab.Directory, "main.unpacked.reached")), "it stands there");
            lab.Guest.Ask("write 5", "wrote");
            first.Kill();
        }

        using (var packed = PackedPages.Open(lab.Directory, lab.Pages))
        {
            Assert.True(packed.Has(5));
        }

        using (var second = lab.StartPagerProcess(resume: true))
        {
            second.WaitUntilPaging();
            Assert.Equal([5L, 0, 0], lab.Guest.Ask("read 5", "read"));
            lab.Guest.Run();
            PagingLab.WaitFor(() => second.Figures()[0] > 3_000, "paging");
            second.Kill();
        }

        using (var packed = PackedPages.Open(lab.Directory, lab.Pages))
        {
            Assert.False(packed.Has(5));
        }

        using var third = lab.StartPagerProcess(resume: true);
        third.WaitUntilPaging();
        Assert.Equal((Used, 0, 0), lab.Guest.StopAndVerify());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(2)]
    public void A_pager_killed_again_and_again_at_any_moment_never_costs_a_byte(int userfaultfds)
    {
        using var lab = new PagingLab(pages: 8_000, used: 6_000, limit: 2_000, tls: false, userfaultfds: userfaultfds);
        lab.Pack(6_000);
        var random = new Random(13);
        for (int life = 0; life < 6; life++)
        {
            using var pager = lab.StartPagerProcess(resume: life > 0);
            pager.WaitUntilPaging();
            if (life == 0)
            {
                lab.Guest.Run();
            }

            int pageOuts = random.Next(100, 1_000);
            PagingLab.WaitFor(() => pager.Figures()[1] > pageOuts, "paging");
            pager.Kill();
        }

        using var last = lab.StartPagerProcess(resume: true);
        last.WaitUntilPaging();
        Assert.Equal((6_000, 0, 0), lab.Guest.StopAndVerify());
    }

    /// <summary>A look at the guest's tables must neither unpack them nor take them for changed at each look, nor miss that they change.</summary>
    [Fact]
    public void They_are_read_as_they_are_and_a_write_to_one_is_not_missed()
    {
        using var lab = new PagingLab(pages: 4_000, used: Used, limit: 1_000);
        lab.Pack(Used);
        lab.StartPager();
        var watch = lab.Pager.OpenWriteWatch();
        PageRange[] watched = [new(10, 200)];
        lab.Guest.Ask("write 12", "wrote");
        PagingLab.WaitFor(() => lab.Table[12].State == PageState.Resident, "the fault thread has let go of it");
        Assert.Equal(200, watch.Look(watched).CountIn(watched[0]));
        Assert.Equal(0, watch.Look(watched).CountIn(watched[0]));
        Assert.Equal(Used - 1, lab.Pager.Snapshot().PackedPages);

        lab.Guest.Ask("write 12", "wrote");
        lab.Guest.Ask("write 17", "wrote");
        var written = watch.Look(watched);
        Assert.Equal(2, written.CountIn(watched[0]));
        Assert.True(written[12] && written[17]);
        Assert.Equal(Used - 2, lab.Pager.Snapshot().PackedPages);
        Assert.Equal([17L, 0, 0], lab.Guest.Ask("read 17", "read"));
    }

    [Fact]
    public void What_the_guest_has_freed_of_them_is_dropped_and_what_is_let_go_is_as_it_was()
    {
        using var lab = new PagingLab(pages: 4_000, used: Used, limit: 1_000);
        lab.Pack(Used);
        lab.StartPager();
        using var target = lab.Pager.OpenReclaimTarget();
        Assert.Equal(100, target.Count(new(0, 100)));
        Assert.True(target.Hold(new(0, 100)));
        lab.Guest.Say("write 7");
        target.LetGo(new(0, 100));
        Assert.Equal([7L], lab.Guest.Expect("wrote"));
        Assert.Equal([7L, 0, 0], lab.Guest.Ask("read 7", "read"));
        Assert.Equal(Used - 1, lab.Pager.Snapshot().PackedPages);

        Assert.True(target.Hold(new(100, 100)));
        Assert.Equal(100, target.Drop(new(100, 100)));
        Assert.Equal(Used - 101, lab.Pager.Snapshot().PackedPages);
        Assert.False(lab.Packed.Has(150));
        // Dead, so it reads as zeros: not what was packed. Errors are counted over all.
        Assert.Equal([150L, 1, 0], lab.Guest.Ask("read 150", "read"));
        lab.Guest.Ask("write 150", "wrote");
        Assert.Equal([150L, 1, 0], lab.Guest.Ask("read 150", "read"));

        // A table that is to be frozen has to be a page.
        Assert.True(target.Freeze(300));
        Assert.Equal(Used - 102, lab.Pager.Snapshot().PackedPages);
        target.Thaw(300);
        Assert.Equal([300L, 1, 0], lab.Guest.Ask("read 300", "read"));
    }
}
