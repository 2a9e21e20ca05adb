using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>Pages whose only copy is gone: a memory error, or a wait that does not end, and never zeros, whoever serves them.</summary>
public sealed class LostPagesTests
{
    [Fact]
    public void A_lost_page_is_lost_for_the_pagers_to_come_too()
    {
        using var lab = Away();
        long page = LosePage(lab);
        Assert.Equal([page, 0, 1], lab.Guest.Ask($"read {page}", "read"));
        for (int turn = 1; turn <= 2; turn++)
        {
            lab.StopPager();
            lab.StartPager(resume: true);
            Assert.Equal(PageState.Lost, lab.Table[page].State);
            Assert.Equal(("lost", 1L), (lab.Pager.Snapshot().State, lab.Pager.Snapshot().LostPages));
            Assert.Equal([page, 0, 1 + turn], lab.Guest.Ask($"read {page}", "read"));
        }

        Assert.Equal((3_000, 0, 4), lab.Guest.StopAndVerify());
    }

    /// <summary>The guest has not been told yet, and its fault is answered by a pager that finds the page nowhere.</summary>
    [Fact]
    public void A_pager_killed_before_the_guest_knows_is_followed_by_one_that_tells_it()
    {
        const string Point = "main.lost.noted";
        using var lab = Away();
        lab.StopPager();
        using (var first = lab.StartPagerProcess(resume: true, Point + "=kill"))
        {
            first.WaitUntilPaging();
            lab.Stores[0].Pages.Discard(new PageRange(100, 1));
            lab.Guest.Say("read 100");
            first.WaitForExit();
            Assert.True(File.Exists(Path.Combine(lab.Directory, Point + ".reached")), "it died where it should");
        }

        using var second = lab.StartPagerProcess(resume: true);
        second.WaitUntilPaging();
        Assert.Equal([100, 0, 1], lab.Guest.Expect("read"));
        Assert.Equal((3_000, 0, 2), lab.Guest.StopAndVerify());
    }

    [Fact]
    public void What_can_not_be_noted_waits_until_it_can()
    {
        using var lab = Away();
        string file = Path.Combine(lab.StateDirectory, "lost-pages");
        // A directory is in its place.
        Directory.CreateDirectory(file);
        long page = LosePage(lab);
        lab.Guest.Say($"read {page}");
        PagingLab.WaitFor(() => lab.Pager.Snapshot() is { State: "lost", LostPages: 1, Outstanding: 1 } f && f.Error!.Contains("noted"), "the guest waits, and it is said why");
        Directory.Delete(file);
        Assert.Equal([page, 0, 1], lab.Guest.Expect("read"));
        Assert.True(LostPages.Read(lab.StateDirectory, lab.Pages)[page]);
    }

    /// <summary>Linux before 6.6. A guest that is woken for such a page faults again at once, for ever.</summary>
    [Fact]
    public void Where_the_kernel_knows_no_memory_errors_who_touches_a_lost_page_waits_and_all_others_go_on()
    {
        using var lab = new PagingLab(pages: 4_000, used: 3_000, limit: 1_000, stores: 1) { MemoryErrors = false };
        lab.StartPager();
        lab.Guest.Run();
        PagingLab.WaitFor(() => lab.Pager.Snapshot().RemotePages[0] > 1_000, "1,000 pages are remote");
        lab.Guest.Ask("stop", "stopped");
        long page = LosePage(lab);
        lab.Guest.Run();
        PagingLab.WaitFor(() => lab.Pager.Snapshot() is { State: "lost", LostPages: 1 } f && f.Error!.Contains("6.6"), "it is said that somebody waits for ever");
        long before = lab.Pager.Snapshot().PageIns;
        PagingLab.WaitFor(() => lab.Pager.Snapshot().PageIns > before + 3_000, "the other threads go on");
        // That it is lost, and that it can't be said: to who has asked for it ahead, and to who touches it.
        Assert.InRange(lab.Pager.Snapshot().Errors, 2, 3);
    }

    [Fact]
    public void What_was_noted_by_halves_is_no_note_and_the_next_one_is_whole()
    {
        string directory = Directory.CreateTempSubdirectory("fctrans-lost-").FullName;
        try
        {
            using (var first = new LostPages(1_000, directory))
            {
                Assert.True(first.TryNote(new(10, 5)));
                Assert.True(first.TryNote(new(8, 10)));
            }

            using (var file = File.Open(Path.Combine(directory, "lost-pages"), FileMode.Append))
            {
                // Of a page that was not lost.
                file.Write([200, 0, 0, 0, 0, 0, 0, 0, 1]);
            }

            using (var second = new LostPages(1_000, directory))
            {
                Assert.True(second.TryNote(new(500, 1)));
            }

            using var read = LostPages.Read(directory, 1_000);
            Assert.Equal([8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 500], Enumerable.Range(0, 1_000).Where(page => read[page]));
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    /// <summary>A guest most of whose pages are with its sub-host, page 100 among them.</summary>
    private static PagingLab Away()
    {
        var lab = new PagingLab(pages: 4_000, used: 3_000, limit: 1_000, stores: 1, threads: 1);
        lab.StartPager();
        lab.Guest.Ask("fill 0 3000", "filled");
        PagingLab.WaitFor(() => lab.Table[100].State == PageState.Remote, "the first pages have left");
        return lab;
    }

    /// <summary>Has the sub-host lose a page that only it has.</summary>
    private static long LosePage(PagingLab lab)
    {
        long page = Enumerable.Range(0, 3_000).First(p => lab.Table[p].State == PageState.Remote);
        lab.Stores[0].Pages.Discard(new PageRange(page, 1));
        return page;
    }
}
