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
}
