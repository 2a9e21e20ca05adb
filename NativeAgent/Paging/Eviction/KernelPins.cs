using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Keeps it true which pages stay because they are the guest kernel's (<see cref="PageHeat"/>). The source finds them once; a VM lives for
/// weeks, changes its page tables, gets memory and boots another kernel. So they are found anew every so many looks at the guest, and at once
/// when the kernel is another. That begins with what the kernel's tables lead to, a tenth of a second; its data is then looked for in a part
/// of the memory at a look, so that a look costs some 10 ms however large the VM is.
/// <para>
/// Nothing is fetched for that, and what is not here reads as zeros. Where that kept the structure of a page from being seen, the page stays
/// what it was; where it kept the tables from being followed, all that stayed goes on staying. Only what another kernel left behind does not.
/// </para>
/// <para>
/// A new set takes the place of the old one while the evictor chooses no victims: whatever it holds then, chosen by the old one, has left
/// or was given up, and what it chooses next it chooses by the new one.
/// </para>
/// One thread at a time.
/// </summary>
/// <param name="table">Of the VM.</param>
/// <param name="heat">Gets the sets.</param>
/// <param name="evictionGate">Held by the evictor through each of its steps.</param>
/// <param name="keep">Is given each new set, for the worker that comes after this one.</param>
internal sealed class KernelPins(PageTable table, PageHeat heat, Lock evictionGate, Action<PageBitmap> keep)
{
    /// <summary>
    /// From the end of one search to the next: some minutes where the guest is at rest, half of one where it takes memory. Also before the
    /// first: there is better to do right after a switch-over.
    /// </summary>
    internal const int RestLooks = 64;

    /// <summary>4 GiB of the guest's memory, whose structures take 64 MiB.</summary>
    private const long PartPages = 1L << 20;

    private GuestKernel? _kernel;
    private int _rest = RestLooks;
    private PageBitmap? _before;
    private bool _sawTables;
    private long _hand = -1;

    /// <summary>Sets that have taken the place of others.</summary>
    public long Renewals { get; private set; }

    /// <summary>Looks at the next part, or rests.</summary>
    /// <param name="pages">Has just looked at the guest, and found its free pages.</param>
    /// <param name="ram">The VM's RAM, with its segments.</param>
    /// <param name="unused">What it found.</param>
    /// <exception cref="Hypervisor.MonitorException">QEMU does not say what the guest's processors run: then the next look does this.</exception>
    public void Look(UnusedPages pages, GuestRam ram, PageBitmap unused)
    {
        if (pages.Kernel is not { } kernel)
        {
            return;
        }

        bool another = _kernel is not null && kernel != _kernel;
        if (!another && _hand < 0 && _rest > 0)
        {
            _kernel = kernel;
            _rest--;
            return;
        }

        var memory = kernel.Memory;
        memory.IsAway = IsAway;
        try
        {
            if (another || _hand < 0)
            {
                Begin(pages, kernel);
            }

            var part = new PageRange(_hand, Math.Min(PartPages, table.PageCount - _hand));
            KernelDataPages.AddTo(kernel, ram, part, unused, heat.NextPinned, _before);
            _hand = part.End;
        }
        finally
        {
            memory.IsAway = null;
        }

        if (_hand == table.PageCount)
        {
            Finish();
        }
    }

    /// <summary>Its content may be at a sub-host, or on its way: what is read of it now are zeros, if so. An unused page holds nothing else.</summary>
    private bool IsAway(long page) => table[page].State is PageState.Remote or PageState.Fetching or PageState.Lost or PageState.Busy;

    private void Begin(UnusedPages pages, GuestKernel kernel)
    {
        heat.NextPinned.Clear();
        kernel.Memory.MetAway = false;
        pages.KernelPagesButData(heat.NextPinned);
        _sawTables = !kernel.Memory.MetAway;
        // A kernel that was lost for a moment, because a page of it was away, is the same when it is found again.
        _before = _kernel is null || kernel.SaysTheSameAs(_kernel) ? heat.Pinned : null;
        _kernel = kernel;
        _hand = 0;
    }

    private void Finish()
    {
        if (!_sawTables && _before is not null)
        {
            heat.NextPinned.Or(_before);
        }

        lock (evictionGate)
        {
            heat.PinNext();
        }

        _before = null;
        _hand = -1;
        _rest = RestLooks;
        Renewals++;
        keep(heat.Pinned!);
    }
}
