using FCtrans.Agent.Introspection;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

public sealed class PerCpuFreePagesTests
{
    private const ulong FirstFrame = SyntheticGuest.HighStart >> 12;

    [Fact]
    public void Blocks_of_every_order_are_found_and_hidden_ones_are_not()
    {
        using var guest = new GuestWithLists();
        guest.SetList(processor: 0, list: 1, FirstFrame + 3, FirstFrame + 1, FirstFrame + 2);
        guest.SetList(processor: 0, list: 10, FirstFrame + 16);
        guest.SetList(processor: 1, list: 12, FirstFrame + 1024, FirstFrame + 512);
        guest.SetCount(0, 3 + 8);
        guest.SetCount(1, 1024);
        Assert.Equal(3 + 8 + 1024, guest.Look(out var unused));
        using (unused)
        {
            Assert.Equal(3 + 8 + 1024, unused.Count());
            Assert.True(unused[guest.Guest.PageOf(FirstFrame + 2)]);
            Assert.True(unused[guest.Guest.PageOf(FirstFrame + 23)]);
            Assert.False(unused[guest.Guest.PageOf(FirstFrame + 24)]);
            Assert.True(unused[guest.Guest.PageOf(FirstFrame + 1535)]);
        }
    }

    [Fact]
    public void A_page_that_was_unused_already_is_counted_once()
    {
        using var guest = new GuestWithLists();
        guest.SetList(0, 1, FirstFrame + 3, FirstFrame + 1);
        guest.SetCount(0, 2);
        using var unused = new PageBitmap(guest.Guest.Ram.PageCount);
        unused[guest.Guest.PageOf(FirstFrame + 1)] = true;
        Assert.Equal(1, guest.Open().AddTo(unused));
        Assert.Equal(2, unused.Count());
    }

    [Theory]
    [InlineData("count too small")]
    [InlineData("count too large")]
    [InlineData("count negative")]
    [InlineData("loop without the head")]
    [InlineData("next outside memory")]
    [InlineData("next in the program's memory")]
    [InlineData("next between two structures")]
    [InlineData("not linked back")]
    [InlineData("head not linked back")]
    [InlineData("referenced")]
    [InlineData("mapped")]
    [InlineData("head of a buddy block")]
    [InlineData("not aligned")]
    [InlineData("structure on another host")]
    public void A_processor_whose_lists_do_not_fit_is_refused_and_the_others_are_not(string what)
    {
        using var guest = new GuestWithLists();
        ulong[] frames = [FirstFrame + 8, FirstFrame + 32, FirstFrame + 16];
        guest.SetList(0, 9, frames);
        guest.SetCount(0, 24);
        guest.SetList(1, 0, FirstFrame + 100);
        guest.SetCount(1, 1);
        Assert.Equal(25, guest.Look(out var before));
        before.Dispose();
        var memory = guest.Guest;
        ulong page = memory.StructPage(frames[1]);
        switch (what)
        {
            case "count too small":
                guest.SetCount(0, 16);
                break;
            case "count too large":
                guest.SetCount(0, 32);
                break;
            case "count negative":
                guest.SetCount(0, -24);
                break;
            case "loop without the head":
                memory.Write(memory.StructPage(frames[2]) + GuestWithLists.LinkOffset, BitConverter.GetBytes(GuestWithLists.Link(frames[1])));
                break;
            case "next outside memory":
                memory.Write(page + GuestWithLists.LinkOffset, BitConverter.GetBytes(GuestWithLists.Link(1UL << 35)));
                break;
            case "next in the program's memory":
                memory.Write(page + GuestWithLists.LinkOffset, BitConverter.GetBytes(0x7f00_0000_1000UL));
                break;
            case "next between two structures":
                memory.Write(page + GuestWithLists.LinkOffset, BitConverter.GetBytes(GuestWithLists.Link(frames[2]) + 8));
                break;
            case "not linked back":
                memory.Write(page + GuestWithLists.LinkOffset + 8, BitConverter.GetBytes(GuestWithLists.Link(frames[2])));
                break;
            case "head not linked back":
                guest.SetLast(0, 9, GuestWithLists.Link(frames[1]));
                break;
            case "referenced":
                memory.Write(page + GuestWithLists.ReferencesOffset, BitConverter.GetBytes(1));
                break;
            case "mapped":
                memory.SetType(frames[1], 0);
                break;
            case "head of a buddy block":
                memory.SetFree(frames[1], 3);
                break;
            case "not aligned":
                guest.SetList(0, 9, FirstFrame + 8, FirstFrame + 33, FirstFrame + 16);
                break;
            case "structure on another host":
                guest.SetList(0, 9, FirstFrame + 8, FirstFrame + 4096, FirstFrame + 16);
                memory.PunchHole(memory.StructPage(FirstFrame + 4096), 4096);
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(what));
        }

        Assert.Equal(1, guest.Look(out var unused));
        using (unused)
        {
            Assert.True(unused[memory.PageOf(FirstFrame + 100)]);
        }
    }

    [Fact]
    public void Counts_of_processors_and_zones_are_bounded()
    {
        using var guest = new GuestWithLists();
        guest.SetList(0, 0, FirstFrame);
        guest.SetCount(0, 1);
        guest.SetProcessors(uint.MaxValue);
        Assert.Equal(0, guest.Look(out var unused));
        unused.Dispose();
        guest.SetProcessors(2);
        guest.SetZones(uint.MaxValue);
        Assert.Equal(0, guest.Look(out unused));
        unused.Dispose();
    }

    [Fact]
    public void A_look_allocates_nothing()
    {
        using var guest = new GuestWithLists();
        guest.SetList(0, 1, FirstFrame + 3, FirstFrame + 1, FirstFrame + 2);
        guest.SetCount(0, 3);
        var lists = guest.Open();
        using var unused = new PageBitmap(guest.Guest.Ram.PageCount);
        _ = lists.AddTo(unused);
        unused.Clear();
        long added = 0;
        Assert.Equal(0, Allocations.Of(() =>
        {
            unused.Clear();
            added = lists.AddTo(unused);
        }));
        Assert.Equal(3, added);
    }

    [Fact]
    public void A_kernel_without_types_has_no_lists()
    {
        using var guest = new SyntheticGuest(new());
        Assert.Null(PerCpuFreePages.TryOpen(guest.Find(), guest.Ram));
    }

    [Fact]
    public void A_layout_that_reaches_out_of_its_structure_is_not_believed()
    {
        using var guest = new GuestWithLists();
        var pages = guest.Guest.Find().Pages;
        var layout = guest.Layout;
        Assert.True(PerCpuFreePages.IsBelievable(layout, pages));
        Assert.False(PerCpuFreePages.IsBelievable(layout with { Lists = 11 }, pages));
        Assert.False(PerCpuFreePages.IsBelievable(layout with { Lists = int.MaxValue }, pages));
        Assert.False(PerCpuFreePages.IsBelievable(layout with { ListsOffset = layout.StructureBytes - 16 }, pages));
        Assert.False(PerCpuFreePages.IsBelievable(layout with { ListsOffset = int.MaxValue - 8 }, pages));
        Assert.False(PerCpuFreePages.IsBelievable(layout with { CountOffset = layout.StructureBytes - 2 }, pages));
        Assert.False(PerCpuFreePages.IsBelievable(layout with { StructureBytes = int.MaxValue }, pages));
        Assert.False(PerCpuFreePages.IsBelievable(layout with { PageLinkOffset = pages.Size - 8 }, pages));
        Assert.False(PerCpuFreePages.IsBelievable(layout with { Nodes = int.MaxValue }, pages));
        Assert.False(PerCpuFreePages.IsBelievable(layout with { ZonePageSetOffset = layout.ZoneBytes }, pages));
    }

    /// <summary>One node with one zone, two processors with 13 lists each, all empty.</summary>
    private sealed class GuestWithLists : IDisposable
    {
        public const ulong LinkOffset = 8;
        public const ulong ReferencesOffset = 52;
        private const ulong Direct = 0xffff_8880_0000_0000;
        private const ulong PageArray = 0xffff_ea00_0000_0000;
        private const int Lists = 13;
        private const ulong ListsOffset = 24;
        private readonly ulong _data;
        private readonly ulong[] _structures;

        public GuestWithLists()
        {
            Guest = new SyntheticGuest(new());
            _data = Guest.Allocate(8192);
            _structures = [Guest.Allocate(4096), Guest.Allocate(4096)];
            Layout = new()
            {
                NodeTable = new(Direct + _data),
                NodesArePointers = true,
                Nodes = 2,
                NodeZonesOffset = 0,
                NodeZoneCountOffset = 2048,
                ZoneBytes = 1024,
                ZonePageSetOffset = 64,
                ProcessorOffsets = new(Direct + _data + 64),
                ProcessorCount = new(Direct + _data + 128),
                StructureBytes = 256,
                CountOffset = 4,
                ListsOffset = (int)ListsOffset,
                Lists = Lists,
                PageLinkOffset = (int)LinkOffset,
                PageReferencesOffset = (int)ReferencesOffset,
            };
            // The per-CPU pointer is 4096; each processor's area lies so that its structure is where it was allocated.
            Guest.Write(_data, BitConverter.GetBytes(Direct + _data + 4096));
            Guest.Write(_data + 64, BitConverter.GetBytes(Direct + _structures[0] - 4096));
            Guest.Write(_data + 72, BitConverter.GetBytes(Direct + _structures[1] - 4096));
            SetProcessors(2);
            SetZones(1);
            Guest.Write(_data + 4096 + 64, BitConverter.GetBytes(4096UL));
            for (int processor = 0; processor < 2; processor++)
            {
                for (int list = 0; list < Lists; list++)
                {
                    SetList(processor, list);
                }
            }
        }

        public SyntheticGuest Guest { get; }

        public PerCpuLayout Layout { get; }

        public static ulong Link(ulong frame) => PageArray + (frame * 64) + LinkOffset;

        public void SetProcessors(uint count) => Guest.Write(_data + 128, BitConverter.GetBytes(count));

        public void SetZones(uint count) => Guest.Write(_data + 4096 + 2048, BitConverter.GetBytes(count));

        public void SetCount(int processor, int pages) => Guest.Write(_structures[processor] + 4, BitConverter.GetBytes(pages));

        public void SetLast(int processor, int list, ulong link) => Guest.Write(Head(processor, list) + 8, BitConverter.GetBytes(link));

        public void SetList(int processor, int list, params ulong[] frames)
        {
            ulong head = Head(processor, list);
            for (int i = 0; i <= frames.Length; i++)
            {
                ulong at = i == frames.Length ? head : Guest.StructPage(frames[i]) + LinkOffset;
                ulong next = i == frames.Length ? (frames.Length == 0 ? Direct + head : Link(frames[0]))
                    : i + 1 == frames.Length ? Direct + head : Link(frames[i + 1]);
                ulong previous = i == frames.Length ? (frames.Length == 0 ? Direct + head : Link(frames[^1]))
                    : i == 0 ? Direct + head : Link(frames[i - 1]);
                Guest.Write(at, BitConverter.GetBytes(next));
                Guest.Write(at + 8, BitConverter.GetBytes(previous));
            }
        }

        public PerCpuFreePages Open() => new(Guest.Find(), Guest.Ram, Layout);

        public long Look(out PageBitmap unused)
        {
            unused = new PageBitmap(Guest.Ram.PageCount);
            return Open().AddTo(unused);
        }

        public void Dispose() => Guest.Dispose();

        private ulong Head(int processor, int list) => _structures[processor] + ListsOffset + (16 * (ulong)list);
    }
}
