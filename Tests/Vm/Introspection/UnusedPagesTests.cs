using System.Globalization;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Vm.Tests.Introspection;

/// <summary>What is said of real guests' memory from outside, against what their kernels say inside.</summary>
public sealed class UnusedPagesTests
{
    /// <summary>A guest's MemFree counts what its processors have not folded into it yet with a delay.</summary>
    private const long Tolerance = 64;

    [Theory]
    [InlineData("6.1", "", "")]
    [InlineData("6.1", "nokaslr pti=on", "-cpu max,-la57")]
    [InlineData("6.12", "", "-cpu max")]
    public void As_much_is_free_as_the_guest_says(string version, string kernelArguments, string qemuArguments)
    {
        using var vm = new GuestUnderTest(version, 3072, kernelArguments, qemuArguments.Split(' ', StringSplitOptions.RemoveEmptyEntries));
        using var unused = new PageBitmap(vm.Ram.PageCount);
        using var pages = vm.OpenUnused(mayMap: true);
        vm.Guest.Invoke("fill 300");
        vm.Guest.Invoke("free 200");

        long seen = 0;
        long said = 0;
        long counted = 0;
        UnusedFigures figures = null!;
        bool agreed = SpinWait.SpinUntil(
            () =>
            {
                figures = pages.Refresh(unused);
                using var scanner = new FreePageScanner(pages.Kernel!, vm.Ram, mayMap: false);
                using var free = new PageBitmap(vm.Ram.PageCount);
                seen = scanner.Scan(free).BuddyPages;
                // The kernel's own count, read from outside, is what it says inside. Read with it: each command in the guest takes pages and gives some back.
                counted = GuestCounters.TryRead(pages.Kernel!, out var counters) ? counters.Free : -1;
                said = vm.MemFreePages();
                return Math.Abs(seen - said) <= Tolerance && Math.Abs(counted - said) <= 1024;
            },
            TimeSpan.FromSeconds(30));
        Assert.True(agreed, $"{seen} free pages were seen, {counted} read from the guest's own count, and the guest says {said}.");
        Assert.Equal(UnusedFigures.Buddy, figures.Method);
        Assert.Equal(vm.Shell("cat /proc/sys/kernel/osrelease").Trim(), figures.GuestKernel);
        Assert.Equal(vm.Shell("cat /proc/cmdline").Trim(), pages.CommandLine!.Trim());
        Assert.Equal(unused.Count(), figures.NeverTouched + figures.Free + figures.Ballooned);
        // The 200 MiB were touched, and are free again.
        Assert.True(figures.Free >= 150 << 8, $"{figures}");
        Assert.True(figures.NeverTouched >= 2000 << 8, $"{figures}");

        Assert.True(GuestCounters.TryRead(pages.Kernel!, out var total));
        Assert.Equal(long.Parse(Field(vm, "MemTotal"), CultureInfo.InvariantCulture) / 4, total.Total);
        AssertLruIsTheGuests(vm, pages, unused);
    }

    /// <summary>How many pages are hot, against the guest's meminfo; each processor keeps some apart from the lists for a while.</summary>
    private static void AssertLruIsTheGuests(GuestUnderTest vm, UnusedPages pages, PageBitmap unused)
    {
        var lru = GuestLru.TryOpen(pages.Kernel!);
        Assert.NotNull(lru);
        using var hot = new PageBitmap(vm.Ram.PageCount);
        lru.AddHot(vm.Ram, unused, hot);
        long saysActive = long.Parse(Field(vm, "Active"), CultureInfo.InvariantCulture) / 4;
        long saysInactive = long.Parse(Field(vm, "Inactive"), CultureInfo.InvariantCulture) / 4;
        Assert.InRange(hot.Count(), 0, saysActive + saysInactive + 1024);
        // With the multi-generational LRU the kernel tells generations apart, not lists, and calls the youngest ones active.
        if (vm.Shell("cat /sys/kernel/mm/lru_gen/enabled 2>/dev/null || echo 0x0000").Trim() == "0x0000")
        {
            Assert.True(hot.Count() >= saysActive - 1024, $"{hot.Count()} {saysActive}");
        }
    }

    private static string Field(GuestUnderTest vm, string name)
        => vm.Shell($"grep '^{name}:' /proc/meminfo").Split(' ', StringSplitOptions.RemoveEmptyEntries)[1];

    [Theory]
    [InlineData("6.1")]
    [InlineData("6.12")]
    public async Task Each_page_is_what_kpageflags_says(string version)
    {
        using var vm = new GuestUnderTest(version, 256);
        using var pages = vm.OpenUnused(mayMap: false);
        using var before = new PageBitmap(vm.Ram.PageCount);
        using var now = new PageBitmap(vm.Ram.PageCount);
        using var changed = new PageBitmap(vm.Ram.PageCount);
        vm.Guest.Invoke("fill 40");
        vm.Guest.Invoke("free 17");
        Assert.Equal(UnusedFigures.Buddy, pages.Refresh(before).Method);
        // The buddy allocator's alone: the pages of the per-CPU lists have no flag of their own in kpageflags.
        using var scanner = new FreePageScanner(pages.Kernel!, vm.Ram, mayMap: false);
        _ = scanner.Scan(before);

        // Runs of page frames whose flag 10 (KPF_BUDDY) is set, written to a file while all that changes is noted here.
        const string Runs =
            "od -An -v -tx8 -w8 /proc/kpageflags | busybox awk '{ b = int(index(\"0123456789abcdef\", substr($1, 14, 1)) - 1); " +
            "f = int(b / 4) % 2; if (f != last) { printf \"%d \", NR - 1; last = f } } END { print NR }' > /tmp/runs";
        var reading = Task.Run(() => vm.Shell(Runs));
        do
        {
            _ = scanner.Scan(now);
            NoteChanges(before, now, changed);
        }
        while (!reading.IsCompleted);
        Assert.Equal("", await reading);

        string text = "";
        for (int part = 0; ; part++)
        {
            string piece = vm.Shell($"dd if=/tmp/runs bs=1000 skip={part} count=1 2>/dev/null");
            if (piece.Length == 0)
            {
                break;
            }

            text += piece;
        }

        long[] edges = [.. text.Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries).Select(edge => long.Parse(edge, CultureInfo.InvariantCulture))];
        Assert.True(edges.Length > 10, text);
        bool free = false;
        long compared = 0;
        long freeCompared = 0;
        var wrong = new List<long>();
        for (int i = 0; i < edges.Length; i++)
        {
            long from = i == 0 ? 0 : edges[i - 1];
            for (long frame = from; frame < edges[i]; frame++)
            {
                if (!vm.Ram.TryPageOf(new((ulong)frame << PageIndex.PageShift), out long page) || changed[page])
                {
                    continue;
                }

                compared++;
                freeCompared += free ? 1 : 0;
                if (before[page] != free)
                {
                    wrong.Add(frame);
                }
            }

            free = !free;
        }

        // A page that was taken and given back between two looks is the only one that may differ.
        Assert.True(compared > vm.Ram.PageCount * 3 / 4, $"Only {compared} pages kept still.");
        Assert.True(freeCompared > 20_000, $"{freeCompared}");
        Assert.True(wrong.Count <= 32, $"{wrong.Count} of {compared} pages differ: {string.Join(' ', wrong.Take(20))}");
    }

    /// <summary>And which pages stay on the main host is found with it, as it is while the guest has many processes.</summary>
    [Fact]
    public void A_reboot_is_noticed_and_the_new_kernel_found()
    {
        using var vm = new GuestUnderTest("6.1", 1024);
        using var unused = new PageBitmap(vm.Ram.PageCount);
        using var pages = vm.OpenUnused(mayMap: true);
        Assert.Equal(UnusedFigures.Buddy, pages.Refresh(unused).Method);
        using var kernels = new PageBitmap(vm.Ram.PageCount);
        pages.KernelPages(kernels, unused);
        using var table = new PageTable(vm.Ram.PageCount);
        table.SetReceived(new(0, table.PageCount));
        using var heat = new PageHeat(vm.Ram.PageCount, kernels);
        var pins = new KernelPins(table, heat, new(), static _ => { });
        long Renew()
        {
            for (long before = pins.Renewals; pins.Renewals == before;)
            {
                Assert.Equal(UnusedFigures.Buddy, pages.Refresh(unused).Method);
                pins.Look(pages, vm.Ram, unused);
            }

            return heat.Pinned!.Count();
        }

        long atRest = Renew();
        Assert.InRange(atRest, kernels.Count() - 1000, kernels.Count() + 1000);
        // Each has a kernel stack of four pages, and page tables.
        vm.Shell("i=0; while [ $i -lt 200 ]; do sleep 1000 >/dev/null 2>&1 & i=$((i+1)); done");
        long busy = Renew();
        Assert.True(busy > atRest + (200 * 5), $"{atRest} {busy}");
        vm.Shell("killall sleep");
        long after = Renew();
        Assert.True(after < busy - (200 * 4), $"{busy} {after}");

        var first = pages.Kernel;
        vm.Monitor.Execute("system_reset");

        // RAM outlives a reset, and so do all the structures of the kernel that ran: yet at once nothing is free any more.
        var figures = pages.Refresh(unused);
        Assert.Equal(UnusedFigures.NeverTouchedOnly, figures.Method);
        Assert.NotEmpty(figures.Reason);
        Assert.True(
            SpinWait.SpinUntil(() => pages.Refresh(unused).Method == UnusedFigures.Buddy, TimeSpan.FromSeconds(60)), "The new kernel was not found.");
        Assert.NotSame(first, pages.Kernel);
        long renewals = pins.Renewals;
        pins.Look(pages, vm.Ram, unused);
        Assert.Equal(renewals + 1, pins.Renewals);
        Assert.True(vm.Guest.Console.WaitForLine(line => line == "oracle ready", TimeSpan.FromSeconds(60)));
        Assert.True(SpinWait.SpinUntil(
            () =>
            {
                var now = pages.Refresh(unused);
                using var scanner = new FreePageScanner(pages.Kernel!, vm.Ram, mayMap: false);
                using var free = new PageBitmap(vm.Ram.PageCount);
                return Math.Abs(scanner.Scan(free).BuddyPages - vm.MemFreePages()) <= Tolerance;
            },
            TimeSpan.FromSeconds(30)));

        Renew();
        kernels.Clear();
        pages.KernelPagesButData(kernels);
        long all = kernels.Count();
        kernels.AndNot(heat.Pinned!);
        // What processes' page tables were read for the look alone, which change with what runs.
        Assert.True(all > 5000 && kernels.Count() <= 16, $"{kernels.Count()} of {all}");
    }

    [Fact]
    public async Task A_kexec_is_noticed_and_costs_no_page_in_use()
    {
        using var vm = new GuestUnderTest("6.12", 320, kexec: true, "");
        using var unused = new PageBitmap(vm.Ram.PageCount);
        using var pages = vm.OpenUnused(mayMap: false);
        vm.Guest.Invoke("fill 60");
        vm.Guest.Invoke("free 40");
        Assert.Equal(UnusedFigures.Buddy, pages.Refresh(unused).Method);
        var first = pages.Kernel;
        vm.Guest.Invoke("kexec /kexec/kernel /kexec/initrd");
        // The oracle of the kernel that comes holds nothing.
        var booted = Task.Run(() => SpinWait.SpinUntil(
            () => vm.Guest.Invoke("stat", TimeSpan.FromSeconds(120))["pages"] == 0, TimeSpan.FromSeconds(120)));

        // All the way from one kernel to the other what is called unused is overwritten. The copying of the new kernel to its place, its
        // loader and its first steps run while the old one's structures still lie in memory, whole.
        bool lost = false;
        do
        {
            vm.Monitor.Stop();
            if (pages.Refresh(unused).Method == UnusedFigures.Buddy)
            {
                Overwrite(vm, unused);
            }
            else
            {
                lost = true;
            }

            vm.Monitor.Cont();
            // The guest is to come to its next kernel, too.
            await Task.WhenAny(booted, Task.Delay(250));
        }
        while (!booted.IsCompleted);
        Assert.True(await booted, "The second kernel did not start.");
        Assert.True(lost, "That another kernel starts was not noticed.");
        Assert.Equal(UnusedFigures.Buddy, pages.Refresh(unused).Method);
        Assert.NotSame(first, pages.Kernel);
        vm.Guest.Invoke("fill 80");
        Assert.Equal(0, vm.Guest.Invoke("verify", TimeSpan.FromSeconds(60))["errors"]);
    }

    [Theory]
    [InlineData("6.1", true, "")]
    [InlineData("6.12", true, "-smp 2")]
    [InlineData("6.12", false, "")]
    public void Used_pages_are_never_called_unused(string version, bool mayMap, string qemuArguments)
    {
        using var vm = new GuestUnderTest(version, 768, "", qemuArguments.Split(' ', StringSplitOptions.RemoveEmptyEntries));
        using var unused = new PageBitmap(vm.Ram.PageCount);
        using var pages = vm.OpenUnused(mayMap);
        vm.Guest.Invoke("fill 500");
        // What was freed just now is partly in the lists of the processors.
        vm.Guest.Invoke("free 300");
        // With the processors stopped a scan is exact: what it calls unused may be overwritten.
        vm.Monitor.Stop();
        var figures = pages.Refresh(unused);
        Assert.Equal(UnusedFigures.Buddy, figures.Method);
        Assert.True(figures.PerCpu > 0, $"{figures}");
        using (var scanner = new FreePageScanner(pages.Kernel!, vm.Ram, mayMap: false))
        using (var buddy = new PageBitmap(vm.Ram.PageCount))
        {
            long blocks = scanner.Scan(buddy).BuddyPages;
            // None of them is in the buddy allocator as well, and a second look at a guest that stands still sees the same.
            buddy.AndNot(unused);
            Assert.Equal(0, buddy.Count());
            Assert.Equal(figures with { ScanMilliseconds = 0, FindMilliseconds = 0 }, pages.Refresh(unused) with { ScanMilliseconds = 0, FindMilliseconds = 0 });
            Assert.True(mayMap || figures.Free == blocks + figures.PerCpu, $"{blocks} in the buddy allocator, {figures}");
        }

        long overwritten = Overwrite(vm, unused);
        vm.Monitor.Cont();
        Assert.True(overwritten > 50_000, $"{overwritten}");
        var verified = vm.Guest.Invoke("verify", TimeSpan.FromSeconds(60));
        Assert.Equal(0, verified["errors"]);
        Assert.True(verified["pages"] >= 200 << 8);
        // And the guest's kernel goes on: it takes all of that memory and clears it itself.
        vm.Guest.Invoke("fresh 100");
        Assert.Equal(0, vm.Guest.Invoke("verify", TimeSpan.FromSeconds(60))["errors"]);
    }

    [Theory]
    [InlineData("6.1")]
    [InlineData("6.12")]
    public void Used_pages_are_never_called_unused_wherever_the_allocator_was_stopped(string version)
    {
        using var vm = new GuestUnderTest(version, 512, "", "-smp", "2");
        using var unused = new PageBitmap(vm.Ram.PageCount);
        // Never touched pages are left out, so that each round is short and its garbage is in pages that go round.
        using var pages = vm.OpenUnused(mayMap: false);
        vm.Guest.Invoke("fill 150");
        vm.Guest.Invoke("run rate=1000 churn=1000 threads=2");
        long perCpu = 0;
        var end = TimeSpan.FromSeconds(15);
        var clock = System.Diagnostics.Stopwatch.StartNew();
        int rounds = 0;
        for (; clock.Elapsed < end; rounds++)
        {
            vm.Monitor.Stop();
            var figures = pages.Refresh(unused);
            perCpu += figures.PerCpu;
            Assert.Equal(UnusedFigures.Buddy, figures.Method);
            Overwrite(vm, unused);
            vm.Monitor.Cont();
        }

        vm.Guest.Invoke("pause", TimeSpan.FromSeconds(60));
        Assert.Equal(0, vm.Guest.Invoke("verify", TimeSpan.FromSeconds(60))["errors"]);
        Assert.True(rounds >= 10, $"{rounds}");
        Assert.True(perCpu > 0, $"{perCpu}");
    }

    private static long Overwrite(GuestUnderTest vm, PageBitmap unused)
    {
        byte[] garbage = new byte[PageIndex.PageSize];
        Array.Fill(garbage, (byte)0x5a);
        long overwritten = 0;
        for (long from = 0; unused.NextRun(from, long.MaxValue, out var run); from = run.End)
        {
            for (long page = run.First; page < run.End; page++, overwritten++)
            {
                RandomAccess.Write(vm.Ram.Blocks[0].File, garbage, page << PageIndex.PageShift);
            }
        }

        return overwritten;
    }

    private static void NoteChanges(PageBitmap before, PageBitmap now, PageBitmap changed)
    {
        int words = (int)((before.PageCount + 63) / 64);
        var was = before.Words(0, words);
        var isNow = now.Words(0, words);
        var noted = changed.Words(0, words);
        for (int i = 0; i < words; i++)
        {
            noted[i] |= was[i] ^ isNow[i];
        }
    }
}
