using FCtrans.Agent.Injection;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Reclaim;

/// <summary>
/// A VM all of whose memory lies here. Pages are frozen by a write-protecting userfaultfd; nobody reads its faults: thawing wakes who
/// waits. QEMU's own copy of it is closed at once, so that it ends with this process, however that ends, and all waiting with it.
/// </summary>
internal sealed class HostReclaimTarget : IReclaimTarget, IDisposable
{
    /// <summary>Dropped at once, in pages: whoever takes a page of a large block meanwhile waits for no more than 4 MiB.</summary>
    private const long PiecePages = 1024;

    private readonly GuestRam _ram;
    private readonly Userfaultfd _userfaultfd;

    private HostReclaimTarget(GuestRam ram, Userfaultfd userfaultfd)
    {
        _ram = ram;
        _userfaultfd = userfaultfd;
    }

    /// <summary>128 MiB: the question to QEMU costs as much as giving some MiB back, so that it is asked for many at once.</summary>
    public long BatchPages => 32768;

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

    public bool IsElsewhere(PageRange block) => false;

    public long Count(PageRange block) => block.Count - NeverTouched!.Pages.CountIn(block);

    public bool Freeze(long structPages) => Protect(new(structPages, 1), true);

    public void Thaw(long structPages) => Protect(new(structPages, 1), false);

    public bool Hold(PageRange pages) => Protect(pages, true);

    public long Drop(PageRange pages)
    {
        long dropped = 0;
        for (long first = pages.First; first < pages.End; first += PiecePages)
        {
            dropped += DropPiece(new(first, Math.Min(PiecePages, pages.End - first)));
        }

        return dropped;
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

        _userfaultfd.Dispose();
    }

    private long DropPiece(PageRange pages)
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

    private bool Protect(PageRange pages, bool protect)
    {
        int errno;
        while ((errno = _userfaultfd.WriteProtect(_ram.AddressOf(pages.First), (ulong)pages.Bytes, protect, wake: !protect)) == Errno.EAGAIN)
        {
            // It lasts while QEMU changes its address space.
            Thread.Yield();
        }

        return errno == 0;
    }
}
