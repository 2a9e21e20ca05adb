using FCtrans.Agent.Interop;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Reclaim;
using FCtrans.Agent.Tracking;
using FCtrans.Kernel.Tests.Paging;
using FCtrans.Unit.Tests.Introspection;
using Xunit;

namespace FCtrans.Kernel.Tests.Reclaim;

/// <summary>
/// Reclaim is parked at each of its steps while the guest, a process of its own under a real write protection, takes a block as a kernel
/// does: first the block's head, then its memory. Whatever the step, what the guest writes is there afterwards.
/// </summary>
public sealed class ReclaimStepTests
{
    private const ulong High = SyntheticGuest.HighStart >> 12;
    private const ulong Free = High;
    private const ulong Taken = High + 1024;
    private const int DataPages = 16;

    /// <summary>What a step lets the guest do at once; the rest of it waits.</summary>
    public enum Gets
    {
        Nothing,
        Head,
        All,
    }

    [Theory]
    [InlineData("before the heads are frozen", Gets.All, 1, false)]
    [InlineData("before the blocks are held", Gets.Nothing, 0, false)]
    [InlineData("before the question", Gets.Nothing, 0, false)]
    [InlineData("before the answer", Gets.Nothing, 0, false)]
    [InlineData("before the heads are thawed", Gets.Nothing, 0, false)]
    [InlineData("before the blocks are dropped", Gets.Head, 0, false)]
    [InlineData("after the blocks were dropped", Gets.All, 0, false)]
    [InlineData("before the heads are frozen", Gets.All, 1, true)]
    [InlineData("before the blocks are held", Gets.Nothing, 0, true)]
    [InlineData("before the question", Gets.Nothing, 0, true)]
    [InlineData("before the answer", Gets.Nothing, 0, true)]
    [InlineData("before the heads are thawed", Gets.Nothing, 0, true)]
    [InlineData("before the blocks are dropped", Gets.Head, 0, true)]
    [InlineData("after the blocks were dropped", Gets.All, 0, true)]
    public void What_the_guest_writes_to_a_block_that_it_takes_meanwhile_is_not_lost(string step, Gets gets, long takenBack, bool watched)
    {
        using var lab = new StepLab();
        if (watched)
        {
            lab.Watch();
        }

        lab.At(step, () => lab.TakeBlock(gets));
        var figures = lab.Reclaim();
        lab.Finish();
        Assert.Equal(takenBack, figures.TakenBack);
        Assert.Equal(takenBack > 0 ? DataPages : 2 * DataPages, figures.FreedPages);
        Assert.False(lab.HasData(Free, 1024));
        Assert.Equal([lab.Page, 0, 0], lab.Guest.Ask($"read {lab.Page}", "read"));
        if (watched)
        {
            // Both blocks' heads were frozen and thawed, and the guest has written one of them: nothing else was.
            Assert.Equal([lab.HeadPage(Free), lab.HeadPage(Taken)], lab.WrittenHeads());
        }
    }

    [Fact]
    public void A_guest_that_writes_what_is_watched_goes_on_at_once_and_is_noticed()
    {
        using var lab = new StepLab();
        lab.Watch();
        Assert.Empty(lab.WrittenHeads());
        for (int round = 0; round < 3; round++)
        {
            lab.TakeBlock(Gets.All);
            Assert.Equal([lab.HeadPage(Taken)], lab.WrittenHeads());
        }

        lab.Finish();
    }

    [Fact]
    public void A_guest_that_runs_something_else_by_then_keeps_all_its_memory()
    {
        using var lab = new StepLab();
        lab.At("before the question", () => lab.Root = 0x5000);
        var figures = lab.Reclaim();
        Assert.Equal(0, figures.FreedPages);
        Assert.True(figures.Uncertain > 0);
        Assert.True(lab.HasData(Free, DataPages) && lab.HasData(Taken, DataPages));
        // Nothing is protected any more.
        lab.TakeBlock(Gets.All);
        lab.Finish();
        Assert.Equal([lab.Page, 0, 0], lab.Guest.Ask($"read {lab.Page}", "read"));
    }

    /// <summary>Two large free blocks side by side, both with data, in the memory of a process that plays the guest.</summary>
    private sealed class StepLab : IDisposable
    {
        private readonly string _directory = Directory.CreateDirectory($"/dev/shm/fctrans-test-{Guid.NewGuid():N}").FullName;
        private readonly SyntheticGuest _kernel;
        private readonly GuestRam _ram;
        private readonly Userfaultfd _userfaultfd;
        private readonly HostReclaimTarget _target;
        private readonly NeverTouchedSet _neverTouched;
        private readonly Dictionary<string, Action> _actions = [];
        private readonly List<string> _toExpect = [];
        private readonly List<PageRange> _structPages = [];

        public StepLab()
        {
            string path = Path.Combine(_directory, "ram");
            _kernel = new(new(), path: path);
            Root = _kernel.Root;
            byte[] old = new byte[4096];
            Array.Fill(old, (byte)0x5a);
            foreach (ulong block in new[] { Free, Taken })
            {
                _kernel.SetFree(block, 10);
                for (ulong i = 0; i < DataPages; i++)
                {
                    _kernel.Write((block + i) << 12, old);
                }
            }

            Page = _kernel.PageOf(Taken) + 5;
            long pages = _kernel.Ram.PageCount;
            Guest = new(_directory, pages, threads: 0, used: 0);
            _ram = new([new RamBlock("ram0", 0, pages, Guest.Address, SparseFile.Open(path, write: true), path)], _kernel.Ram.Segments.ToArray());
            using var process = PidFd.Open(Guest.ProcessId);
            _userfaultfd = new(process.GetFd(Guest.UffdNumbers[0]));
            _target = HostReclaimTarget.Adopt(_ram, _userfaultfd);
            _neverTouched = new(_ram);
            _neverTouched.Prepare();
            _target.NeverTouched = _neverTouched;
        }

        public TestGuest Guest { get; }

        /// <summary>The page of the block that the guest writes.</summary>
        public long Page { get; }

        /// <summary>Where the guest's processor has its page tables.</summary>
        public ulong Root { get; set; }

        public void At(string step, Action action) => _actions.Add(step, action);

        public ReclaimFigures Reclaim()
        {
            using var check = new ProcessorCheck(
                () =>
                {
                    Reach("before the question");
                    var answer = new GuestProcessor(0x8000_0001, Root, 0x20, 0x500);
                    Reach("before the answer");
                    return [answer];
                },
                limitMilliseconds: 60_000);
            var kernel = _kernel.Find();
            using var scanner = new FreePageScanner(kernel, _ram, mayMap: false);
            using var free = new PageBitmap(_ram.PageCount);
            var reclaimer = new Reclaimer(_ram, new Steps(this, _target), check);
            reclaimer.Begin(kernel, new(), null, CancellationToken.None);
            scanner.Visit(free, reclaimer);
            return reclaimer.Finish();
        }

        /// <summary>All page structures are watched from here on.</summary>
        public void Watch()
        {
            using var pages = new PageBitmap(_ram.PageCount);
            KernelPageSet.AddStructPages(_kernel.Find(), _ram, pages);
            for (long at = 0; pages.NextRunIn(new(at, _ram.PageCount - at), out var run); at = run.End)
            {
                _structPages.Add(run);
            }

            _target.OpenWriteWatch().Look(_structPages);
        }

        /// <summary>Those of the pages with structures that were written since the look before.</summary>
        public List<long> WrittenHeads()
        {
            var written = _target.OpenWriteWatch().Look(_structPages);
            return [.. _structPages.SelectMany(r => Enumerable.Range(0, (int)r.Count).Select(i => r.First + i)).Where(page => written[page])];
        }

        public long HeadPage(ulong frame) => _kernel.PageOf(_kernel.StructPage(frame) >> 12);

        /// <summary>The guest begins to take the block; returns when it has come as far as it can now.</summary>
        public void TakeBlock(Gets gets)
        {
            Assert.True(_kernel.Memory.TryLocate(new(_kernel.StructPage(Taken)), out _, out long offset, out _));
            Guest.Say($"poke {offset + _kernel.Layout.MapcountOffset} -1");
            Guest.Say($"write {Page}");
            _toExpect.AddRange(["poked", "wrote"]);
            for (int i = 0; i < (int)gets; i++)
            {
                Guest.Expect(_toExpect[0]);
                _toExpect.RemoveAt(0);
            }

            if (gets != Gets.All)
            {
                PagingLab.WaitFor(() => _userfaultfd.ReadState().WaitingFaults == 1, "the guest waits");
            }
        }

        /// <summary>Returns when the guest has done all it began.</summary>
        public void Finish()
        {
            _toExpect.ForEach(word => Guest.Expect(word));
            _toExpect.Clear();
        }

        public bool HasData(ulong frame, long pages)
        {
            long from = _kernel.PageOf(frame) << PageIndex.PageShift;
            long data = SparseFile.NextData(_ram.Blocks[0].File, from);
            return data >= 0 && data < from + (pages << PageIndex.PageShift);
        }

        public void Dispose()
        {
            _target.Dispose();
            _neverTouched.Dispose();
            Guest.Dispose();
            _ram.Dispose();
            _kernel.Dispose();
            Directory.Delete(_directory, recursive: true);
        }

        private void Reach(string step)
        {
            if (_actions.Remove(step, out var action))
            {
                action();
            }
        }

        /// <summary>The real target, with a place to park before and after each step.</summary>
        private sealed class Steps(StepLab lab, HostReclaimTarget target) : IReclaimTarget
        {
            public long BatchPages => target.BatchPages;

            public long PiecePages => target.PiecePages;

            public bool DropsWhileAsking => target.DropsWhileAsking;

            public long Count(PageRange block) => target.Count(block);

            public bool IsElsewhere(PageRange block) => target.IsElsewhere(block);

            public bool Freeze(long structPages)
            {
                lab.Reach("before the heads are frozen");
                return target.Freeze(structPages);
            }

            public void Thaw(long structPages)
            {
                lab.Reach("before the heads are thawed");
                target.Thaw(structPages);
            }

            public bool Hold(PageRange pages)
            {
                lab.Reach("before the blocks are held");
                return target.Hold(pages);
            }

            public long Drop(PageRange pages)
            {
                lab.Reach("before the blocks are dropped");
                long dropped = target.Drop(pages);
                if (pages.First <= lab.Page && lab.Page < pages.End)
                {
                    lab.Reach("after the blocks were dropped");
                }

                return dropped;
            }

            public void LetGo(PageRange pages) => target.LetGo(pages);
        }
    }
}
