using FCtrans.Agent.Injection;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Kernel.Tests.Child;
using Xunit;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>The userfaultfds of a VM that has several: each access faults in that of its piece, whoever finds them later.</summary>
public sealed unsafe class UserfaultfdSetTests : IDisposable
{
    /// <summary>Four pages a piece.</summary>
    private const int PieceShift = 2;

    private const int Count = 3;

    private readonly ChildProcess _child = new("poll", pages: 61);
    private readonly GuestRam _ram;

    public UserfaultfdSetTests()
    {
        // Two blocks, the border between them within a piece.
        const long First = 26;
        _ram = new(
            [
                new RamBlock("a", 0, First, _child.Base, SparseFile.Open($"/proc/self/fd/{_child.File.DangerousGetHandle()}", write: true), "a"),
                new RamBlock("b", First, _child.Pages - First, _child.AddressOf(First), SparseFile.Open($"/proc/self/fd/{_child.File.DangerousGetHandle()}", write: true), "b"),
            ],
            []);
    }

    public void Dispose()
    {
        _ram.Dispose();
        _child.Dispose();
    }

    [Fact]
    public void Each_fault_comes_to_the_one_of_its_piece_also_after_a_restart()
    {
        using (var made = Register())
        {
            Serve(made, 3);
            Serve(made, 4);
        }

        // QEMU's files may be found in any order.
        using var found = UserfaultfdSet.Find(_ram, [.. UserfaultfdInjector.Adopt(_child.Pid).Reverse()], PieceShift);
        Assert.Equal(Count, found.All.Length);
        foreach (long page in (long[])[0, 8, 23, 25, 26, 28, 60])
        {
            Serve(found, page);
        }

        Assert.Equal(0, _child.State("errors"));
    }

    [Fact]
    public void What_is_done_to_a_range_is_done_to_all_of_its_pieces()
    {
        using var set = Register();
        var pages = new GuestPages(_ram, set);
        Assert.Equal(0, pages.Zero(new(1, 20), out long zeroed));
        Assert.Equal(20, zeroed);
        using var content = MappedMemory.Anonymous(30 << PageIndex.PageShift);
        new Span<byte>(content.Address, (int)content.Bytes).Fill(0x11);
        Assert.Equal(0, pages.Copy(new(26, 30), content.Address, protect: true, out long copied));
        Assert.Equal(30, copied);
        foreach (long page in (long[])[1, 20, 26, 55])
        {
            Assert.Equal(page < 26 ? "0" : $"{0x1111111111111111UL}", _child.Ask($"read {page}"));
        }

        // A page that is there ends it; what is before that, in another piece too, is in.
        Assert.Equal(0, pages.Zero(25));
        Assert.Equal(Errno.EEXIST, pages.Copy(new(21, 5), content.Address, protect: false, out copied));
        Assert.Equal(4, copied);

        Assert.Equal(0, pages.Protect(new(1, 20)));
        _child.Send("write 20 7");
        Assert.True(set.Of(20).WaitReadable(20_000));
        Assert.Equal(1, set.Of(20).ReadEvents(new UffdMessage[1]));
        Assert.Equal(0, pages.Unprotect(new(1, 20)));
        Assert.Equal("ok", _child.Receive());
        Assert.Equal("7", _child.Ask("read 20"));
    }

    [Fact]
    public void A_part_of_the_memory_that_nobody_serves_is_an_error_and_stays_one()
    {
        Register().Dispose();
        var kept = UserfaultfdInjector.Adopt(_child.Pid);

        // One that is there and was not found: its pieces are another's.
        Assert.Equal(Errno.EBUSY, Assert.Throws<KernelException>(() => UserfaultfdSet.Find(_ram, kept.Skip(1).ToArray(), PieceShift)).Errno);
        kept[0].Dispose();

        // All that QEMU had are gone, and with them what was registered.
        UserfaultfdInjector.CloseInTarget(_child.Pid);
        for (int turn = 0; turn < 2; turn++)
        {
            var stranger = UserfaultfdInjector.Open(_child.Pid, 1, UffdFeatures.Paging);
            Assert.Equal(Errno.ENOENT, Assert.Throws<KernelException>(() => UserfaultfdSet.Find(_ram, stranger, PieceShift)).Errno);
        }
    }

    [Theory]
    [InlineData(1, 1L << 20, 1)]
    [InlineData(2, 1L << 30, 1)]
    [InlineData(4, 1L << 20, 2)]
    [InlineData(16, 1L << 20, 8)]
    [InlineData(200, 1L << 28, 8)]
    [InlineData(16, 1L << 16, 2)]
    [InlineData(16, 100, 1)]
    public void A_VM_has_one_for_two_CPUs_and_a_small_one_fewer(int cpus, long pages, int count) =>
        Assert.Equal(count, UserfaultfdSet.CountFor(cpus, pages));

    private UserfaultfdSet Register() =>
        UserfaultfdSet.Register(_ram, UserfaultfdInjector.Open(_child.Pid, Count, UffdFeatures.Paging), PieceShift);

    /// <summary>The child reads the page; that of its piece has the fault, no other, and what is answered there wakes it.</summary>
    private void Serve(UserfaultfdSet set, long page)
    {
        _child.Send($"read {page}");
        var owner = set.Of(page);
        var messages = new UffdMessage[2];
        Assert.True(owner.WaitReadable(20_000), "No fault came.");
        Assert.Equal(1, owner.ReadEvents(messages));
        Assert.Equal(_child.AddressOf(page).Value, messages[0].Address);
        Assert.Equal((ulong)(page >> PieceShift) % Count, (ulong)set.All.ToArray().ToList().IndexOf(owner));
        Assert.Equal(Errno.None, new GuestPages(_ram, set).Zero(page));
        Assert.Equal("0", _child.Receive());
    }
}
