using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>A virtual machine under KVM: its accesses fault in the kernel, and its writes are seen by KVM's own page tables only.</summary>
public sealed class KvmTests
{
    [Fact]
    public void A_guest_under_KVM_with_half_of_its_memory_elsewhere_outlives_its_pagers_without_a_wrong_byte()
    {
        const int Held = 16;
        const long HeldPages = Held * 256;
        using var guest = new BareGuest(mebibytes: 48, Held, userfaultfds: 3);
        Assert.True(guest.UsesKvm);
        using var lab = new PagingLab(guest, guest.Pages, limit: HeldPages / 2);
        var random = new Random(5);
        for (int life = 0; life < 3; life++)
        {
            // The first finds a guest that has run without any: all that it wrote is here.
            using var pager = lab.StartPagerProcess(resume: true);
            pager.WaitUntilPaging();
            if (life == 0)
            {
                Assert.Equal(3, guest.Invoke("run rewrite=3")["rewrite"]);
            }

            // Page-ins, pages that were sent out, and clean ones that were dropped.
            int pageIns = random.Next(500, 2_000);
            PagingLab.WaitFor(() => pager.Figures() is var f && f[0] > pageIns && f[1] > 500 && f[3] > 50, "paging");
            Assert.InRange(lab.ResidentBytes(), 1, HeldPages / 2 * 4096 * 105 / 100);
            pager.Kill();
        }

        using var last = lab.StartPagerProcess(resume: true);
        last.WaitUntilPaging();
        var passed = guest.WaitForFullPass();
        // Once at first, and each third in each of two passes at least.
        Assert.True(passed["rewritten"] > HeldPages * 3 / 2, passed.ToString());
        guest.Invoke("pause");
        var verified = guest.Invoke("verify");
        Assert.Equal((HeldPages, 0, 0), (verified["pages"], verified["errors"], verified["total_errors"]));
        Assert.True(last.Figures()[0] > HeldPages / 4);
        Assert.Equal(0, last.Figures()[4]);
    }

    /// <summary>It has nothing that could handle such an error, and so it ends, rather than go on with what is not its own.</summary>
    [Fact]
    public void A_machine_that_touches_a_lost_page_gets_a_memory_error_and_never_a_wrong_byte()
    {
        using var lab = new PagingLab(Player.Kvm, used: 2_560, limit: 768, stores: 1);
        lab.StartPager();
        PagingLab.WaitFor(() => lab.Pager.Snapshot().RemotePages[0] > 1_000, "1,000 pages are remote");
        // Of those that it goes through first; its own begin at 16 MiB.
        long page = Enumerable.Range(4_096, 2_560).First(p => lab.Table[p].State == PageState.Remote);
        lab.Stores[0].Pages.Discard(new PageRange(page, 1));
        lab.Oracle.Run();
        PagingLab.WaitFor(() => !Directory.Exists($"/proc/{lab.Process.ProcessId}"), "the machine has ended");
        Assert.Equal(("lost", 1L), (lab.Pager.Snapshot().State, lab.Pager.Snapshot().LostPages));
        Assert.DoesNotContain(((BareGuest)lab.Process).Log, line => line.StartsWith("! mismatch", StringComparison.Ordinal));
    }
}
