using FCtrans.Agent.Injection;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Reclaim;

/// <summary>
/// A VM all of whose memory lies here. Pages are frozen by a write-protecting userfaultfd; thawing wakes who waits. Nobody reads its faults
/// unless pages are watched (<see cref="OpenWriteWatch"/>): then a thread lets who writes to a watched page go on at once. QEMU's own copy of it is closed at once, so that it ends with this process, however that ends, and all waiting with it.
/// </summary>
internal sealed class HostReclaimTarget : IReclaimTarget, IWriteProtection, IDisposable
{
    private const int MessagesAtOnce = 64;

    private readonly GuestRam _ram;
    private readonly Userfaultfd _userfaultfd;

    /// <summary>With a watch: held while <see cref="_frozen"/> changes, and while a page's protection is lifted or set for the watch.</summary>
    private readonly Lock _gate = new();
    private PageBitmap? _frozen;
    private WriteWatch? _watch;
    private EventFd? _end;
    private Thread? _thread;
    private volatile bool _ending;

    private HostReclaimTarget(GuestRam ram, Userfaultfd userfaultfd)
    {
        _ram = ram;
        _userfaultfd = userfaultfd;
    }

    /// <summary>64 MiB: the question to QEMU takes as long as giving some MiB back.</summary>
    public long BatchPages => 16384;

    /// <summary>4 MiB, a millisecond's work.</summary>
    public long PiecePages => 1024;

    public bool DropsWhileAsking => true;

    /// <summary>The pages that need no reclaim; the one that the scan uses. Set before a scan begins.</summary>
    public NeverTouchedSet? NeverTouched { get; set; }

    /// <exception cref="KernelException">EBUSY: the VM's memory is tracked already (it is being migrated, or reclaimed by another).</exception>
    /// <exception cref="InjectionException">QEMU may not have a userfaultfd.</exception>
    public static HostReclaimTarget Attach(GuestRam ram, int processId)
    {
        if (UserfaultfdInjector.FindIn(processId).Count > 0)
        {
            throw new InvalidOperationException("The VM's memory is tracked already: it is being migrated, or split.");
        }

        var userfaultfd = UserfaultfdInjector.Open(processId);
        try
        {
            UserfaultfdInjector.CloseInTarget(processId);
            return Adopt(ram, userfaultfd);
        }
        catch
        {
            userfaultfd.Dispose();
            throw;
        }
    }

    /// <summary>As <see cref="Attach"/>, with a userfaultfd of the process that was opened for nothing yet. It is the target's from here on.</summary>
    /// <exception cref="KernelException">It can't be used for this memory.</exception>
    public static HostReclaimTarget Adopt(GuestRam ram, Userfaultfd userfaultfd)
    {
        userfaultfd.Api(UffdFeatures.WpHugetlbfsShmem | UffdFeatures.PagefaultFlagWp);
        foreach (var block in ram.Blocks)
        {
            userfaultfd.Register(block.MappedAt, (ulong)block.PageCount << PageIndex.PageShift, UffdRegisterMode.Wp);
        }

        return new(ram, userfaultfd);
    }

    /// <summary>Knows which pages the guest writes from now on. The same one each time; it goes with this.</summary>
    public WriteWatch OpenWriteWatch()
    {
        if (_watch is null)
        {
            _frozen = new(_ram.PageCount);
            _end = new();
            _watch = new(_ram.PageCount, this);
            _thread = new Thread(LetWritersGoOn) { IsBackground = true, Name = "watch" };
            _thread.Start();
        }

        return _watch;
    }

    long IWriteProtection.Protect(PageRange pages, WriteWatch watch)
    {
        lock (_gate)
        {
            if (Set(pages, true) != 0)
            {
                return 0;
            }

            watch.Protected(pages);
            return pages.Count;
        }
    }

    public bool IsElsewhere(PageRange block) => false;

    public long Count(PageRange block) => block.Count - NeverTouched!.Pages.CountIn(block);

    public bool Freeze(long structPages) => Protect(new(structPages, 1), true);

    public void Thaw(long structPages) => Protect(new(structPages, 1), false);

    public bool Hold(PageRange pages) => Protect(pages, true);

    public long Drop(PageRange pages)
    {
        long count = Count(pages);
        var block = _ram.BlockOf(pages.First);
        bool done = SparseFile.PunchHole(block.File, (pages.First - block.FirstPage) << PageIndex.PageShift, pages.Bytes) == 0;
        if (done)
        {
            NeverTouched!.Pages.Fill(pages, true);
        }

        Protect(pages, false);
        return done ? count : 0;
    }

    public void LetGo(PageRange pages) => Protect(pages, false);

    /// <summary>QEMU's memory is as it was.</summary>
    public void Dispose()
    {
        try
        {
            foreach (var block in _ram.Blocks)
            {
                _userfaultfd.Unregister(block.MappedAt, (ulong)block.PageCount << PageIndex.PageShift);
            }
        }
        catch (KernelException)
        {
            // QEMU has ended, and its memory with it.
        }

        // Nothing is protected any more: nobody waits for the thread.
        _ending = true;
        _end?.Signal();
        _thread?.Join();
        _end?.Dispose();
        _watch?.Dispose();
        _frozen?.Dispose();
        _userfaultfd.Dispose();
    }

    /// <summary>Freezes pages, or thaws them and wakes who waits.</summary>
    private bool Protect(PageRange pages, bool protect)
    {
        Note(pages, protect);
        int errno = Set(pages, protect);
        if (errno != 0 && protect && _watch is not null)
        {
            // A part may be protected, and who writes there may have been taken for one who waits for the thaw.
            Note(pages, false);
            Set(pages, false);
        }

        return errno == 0;
    }

    private void Note(PageRange pages, bool frozen)
    {
        if (_watch is not null)
        {
            lock (_gate)
            {
                _frozen!.Fill(pages, frozen);
                if (!frozen)
                {
                    _watch.Wrote(pages);
                }
            }
        }
    }

    private int Set(PageRange pages, bool protect)
    {
        int errno;
        while ((errno = _userfaultfd.WriteProtect(_ram.AddressOf(pages.First), (ulong)pages.Bytes, protect, wake: !protect)) == Errno.EAGAIN)
        {
            // It lasts while QEMU changes its address space.
            Thread.Yield();
        }

        return errno;
    }

    private void LetWritersGoOn()
    {
        Span<UffdMessage> messages = stackalloc UffdMessage[MessagesAtOnce];
        while (!_ending)
        {
            int count = _userfaultfd.WaitReadable(-1, _end) ? _userfaultfd.ReadEvents(messages) : 0;
            if (count < 0)
            {
                // QEMU has ended: nobody waits.
                return;
            }

            foreach (ref readonly var message in messages[..count])
            {
                if (message.Event != UffdEvent.PageFault || !_ram.TryPageAt(new(message.Address), out long page))
                {
                    continue;
                }

                lock (_gate)
                {
                    if (!_frozen![page])
                    {
                        _watch!.Wrote(new(page, 1));
                        Set(new(page, 1), false);
                    }
                }
            }
        }
    }
}
