using FCtrans.Agent.Injection;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Kernel.Tests.Child;
using Xunit;

namespace FCtrans.Kernel.Tests.Interop;

/// <summary>Serving the memory of another process: each request does there what the pager relies on.</summary>
public sealed unsafe class UserfaultfdTests
{
    private const ulong Page = PageIndex.PageSize;

    [Fact]
    public void A_missing_page_waits_until_it_is_copied_in()
    {
        using var child = new ChildProcess("poll");
        using var uffd = OpenForPaging(child);
        child.Send("read 5");
        var fault = NextFault(uffd);
        Assert.Equal(child.AddressOf(5).Value, fault.Address);
        Assert.Equal(UffdFaultFlags.None, fault.Flags);
        Assert.NotEqual(0u, fault.ThreadId);
        Assert.Equal(1, uffd.ReadState().WaitingFaults);

        using var source = MappedMemory.Anonymous(2 * (nuint)Page);
        *(ulong*)source.Address = 4242;
        *(ulong*)(source.Address + Page) = 4343;
        Assert.Equal(Errno.None, uffd.Copy(child.AddressOf(5), source.Address, 2 * Page, UffdCopyMode.None, out long copied));
        Assert.Equal(2 * (long)Page, copied);
        Assert.Equal("4242", child.Receive());
        Assert.Equal("4343", child.Ask("read 6"));

        // The page is there: whoever comes second is told, and does no harm.
        *(ulong*)source.Address = 1;
        Assert.Equal(Errno.EEXIST, uffd.Copy(child.AddressOf(5), source.Address, Page, UffdCopyMode.None, out copied));
        Assert.Equal(0, copied);
        Assert.Equal("4242", child.Ask("read 5"));
    }

    [Fact]
    public void A_zero_page_comes_without_data_and_can_be_written()
    {
        using var child = new ChildProcess("sleep");
        using var uffd = OpenForPaging(child);
        child.Send("write 7 99");
        var fault = NextFault(uffd);
        Assert.True(fault.Flags.HasFlag(UffdFaultFlags.Write));
        Assert.Equal(Errno.None, uffd.ZeroPage(new HostAddress(fault.Address), Page, UffdZeroMode.None, out long zeroed));
        Assert.Equal((long)Page, zeroed);
        Assert.Equal("ok", child.Receive());
        Assert.Equal("99", child.Ask("read 7"));
    }

    [Fact]
    public void A_write_protected_page_holds_a_writer_and_lets_readers_pass()
    {
        using var child = new ChildProcess("poll");
        child.Ask("write 3 33");
        using var uffd = OpenForPaging(child);
        Assert.Equal(Errno.None, uffd.WriteProtect(child.AddressOf(3), Page, protect: true, wake: false));
        Assert.Equal("33", child.Ask("read 3"));
        child.Send("write 3 34");
        var fault = NextFault(uffd);
        Assert.True(fault.Flags.HasFlag(UffdFaultFlags.Wp));
        Assert.True(fault.Flags.HasFlag(UffdFaultFlags.Write));

        // Lifting without a wake leaves the writer waiting; the wake lets it go on.
        Assert.Equal(Errno.None, uffd.WriteProtect(child.AddressOf(3), Page, protect: false, wake: false));
        Assert.Equal(1, uffd.ReadState().WaitingFaults);
        Assert.Equal(Errno.None, uffd.Wake(child.AddressOf(3), Page));
        Assert.Equal("ok", child.Receive());
        Assert.Equal("34", child.Ask("read 3"));
    }

    [Fact]
    public void A_page_taken_out_while_protected_faults_as_missing_and_can_come_back_protected()
    {
        using var child = new ChildProcess("poll");
        child.Ask("write 8 88");
        using var uffd = OpenForPaging(child);
        Assert.Equal(Errno.None, uffd.WriteProtect(child.AddressOf(8), Page, protect: true, wake: false));
        ulong kept;
        Assert.Equal(8, SparseFile.Read(child.File, &kept, 8, 8 * (long)Page));
        Assert.Equal(88ul, kept);
        Assert.Equal(Errno.None, SparseFile.PunchHole(child.File, 8 * (long)Page, (long)Page));
        Assert.Equal(-1, SparseFile.NextData(child.File, 0));

        child.Send("read 8");
        Assert.False(NextFault(uffd).Flags.HasFlag(UffdFaultFlags.Wp));
        using var source = MappedMemory.Anonymous((nuint)Page);
        *(ulong*)source.Address = kept;
        Assert.Equal(Errno.None, uffd.Copy(child.AddressOf(8), source.Address, Page, UffdCopyMode.Wp, out _));
        Assert.Equal("88", child.Receive());
        child.Send("write 8 89");
        Assert.True(NextFault(uffd).Flags.HasFlag(UffdFaultFlags.Wp));
        Assert.Equal(Errno.None, uffd.WriteProtect(child.AddressOf(8), Page, protect: false, wake: true));
        Assert.Equal("ok", child.Receive());
    }

    [Fact]
    public void Nothing_to_read_is_no_error_and_a_signalled_event_ends_the_wait()
    {
        using var child = new ChildProcess("poll");
        using var uffd = OpenForPaging(child);
        using var wakeup = new EventFd();
        Assert.Equal(0, uffd.ReadEvents(new UffdMessage[4]));
        Assert.False(uffd.WaitReadable(0, wakeup));
        wakeup.Signal();
        Assert.False(uffd.WaitReadable(-1, wakeup));
        Assert.True(wakeup.Drain());
        Assert.False(wakeup.Drain());
        child.Send("read 1");
        Assert.True(uffd.WaitReadable(20_000, wakeup));
        Assert.Equal(Errno.None, uffd.ZeroPage(child.AddressOf(1), Page, UffdZeroMode.None, out _));
        Assert.Equal("0", child.Receive());
    }

    [Fact]
    public void After_the_server_is_gone_faults_wait_and_its_successor_serves_them()
    {
        using var child = new ChildProcess("poll");
        var first = OpenForPaging(child);
        child.Send("read 11");
        first.Dispose();
        using var second = UserfaultfdInjector.Adopt(child.Pid).Single();
        var state = second.ReadState();
        Assert.True(state.Initialised);
        Assert.Equal(UffdFeatures.Paging, state.Features & UffdFeatures.Paging);
        Assert.Equal(child.AddressOf(11).Value, NextFault(second).Address);
        ulong value = 1111;
        using var source = MappedMemory.Anonymous((nuint)Page);
        *(ulong*)source.Address = value;
        Assert.Equal(Errno.None, second.Copy(child.AddressOf(11), source.Address, Page, UffdCopyMode.None, out _));
        Assert.Equal("1111", child.Receive());
        Assert.Equal(0, child.State("errors"));
    }

    [Fact]
    public void A_second_userfaultfd_gets_the_range_only_after_the_first_is_closed_there_too()
    {
        using var child = new ChildProcess("poll");
        using (OpenForPaging(child))
        {
            using var rival = UserfaultfdInjector.Open(child.Pid);
            rival.Api(UffdFeatures.Paging);
            var busy = Assert.Throws<KernelException>(() => rival.Register(child.Base, child.Bytes, UffdRegisterMode.Missing));
            Assert.Equal(Errno.EBUSY, busy.Errno);
        }

        Assert.Equal(2, UserfaultfdInjector.FindIn(child.Pid).Count);
        UserfaultfdInjector.CloseInTarget(child.Pid);
        Assert.Empty(UserfaultfdInjector.FindIn(child.Pid));
        Assert.Empty(UserfaultfdInjector.Adopt(child.Pid));
        using var again = OpenForPaging(child);
        Assert.Equal(0, child.State("errors"));
    }

    [Fact]
    public void A_poisoned_page_never_reads_as_zero()
    {
        using var child = new ChildProcess("poll");
        using var uffd = OpenForPaging(child);
        Assert.Equal(Errno.None, uffd.Poison(child.AddressOf(4), Page, UffdPoisonMode.None, out long done));
        Assert.Equal((long)Page, done);
        using var process = PidFd.Open(child.Pid);
        child.Send("read 4");

        // SIGBUS: the child has no handler for it, where QEMU passes it on as a memory error.
        Assert.True(process.WaitExit(TimeSpan.FromSeconds(20)));
    }

    [Fact]
    public void A_missing_feature_is_named()
    {
        using var uffd = Userfaultfd.Open();
        const UffdFeatures Unknown = (UffdFeatures)(1UL << 60);
        var refused = Assert.Throws<KernelException>(() => uffd.Api(Unknown));
        Assert.Contains("0x1000000000000000", refused.Message);
        Assert.NotEmpty(refused.Remedy);
    }

    [Fact]
    public void The_hot_path_does_not_allocate()
    {
        using var child = new ChildProcess("poll");
        using var uffd = OpenForPaging(child);
        using var wakeup = new EventFd();
        using var source = MappedMemory.Anonymous((nuint)Page);
        var messages = new UffdMessage[16];
        long Work(long from, long to)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (long page = from; page < to; page++)
            {
                uffd.Copy(child.AddressOf(page), source.Address, Page, UffdCopyMode.None, out _);
                uffd.WriteProtect(child.AddressOf(page), Page, protect: true, wake: false);
                SparseFile.Read(child.File, source.Address, (nuint)Page, page << PageIndex.PageShift);
                SparseFile.PunchHole(child.File, page << PageIndex.PageShift, (long)Page);
                uffd.ZeroPage(child.AddressOf(page), Page, UffdZeroMode.None, out _);
                uffd.Wake(child.AddressOf(page), Page);
                uffd.WaitReadable(0, wakeup);
                uffd.ReadEvents(messages);
            }

            return GC.GetAllocatedBytesForCurrentThread() - before;
        }

        Work(0, 100);
        Assert.Equal(0, Work(100, 1000));
    }

    private static Userfaultfd OpenForPaging(ChildProcess child)
    {
        var uffd = UserfaultfdInjector.Open(child.Pid);
        uffd.Api(UffdFeatures.Paging);
        var possible = uffd.Register(child.Base, child.Bytes, UffdRegisterMode.Missing | UffdRegisterMode.Wp);
        const UffdIoctls Needed = UffdIoctls.Copy | UffdIoctls.ZeroPage | UffdIoctls.WriteProtect | UffdIoctls.Wake;
        Assert.Equal(Needed, possible & Needed);
        return uffd;
    }

    private static UffdMessage NextFault(Userfaultfd uffd)
    {
        var messages = new UffdMessage[1];
        Assert.True(uffd.WaitReadable(20_000), "No fault came.");
        Assert.Equal(1, uffd.ReadEvents(messages));
        Assert.Equal(UffdEvent.PageFault, messages[0].Event);
        return messages[0];
    }
}
