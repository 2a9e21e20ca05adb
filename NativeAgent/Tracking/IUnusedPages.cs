using FCtrans.Agent.Introspection;

namespace FCtrans.Agent.Tracking;

/// <summary>Tells which pages of a VM hold nothing that the guest needs. Used by one thread.</summary>
internal interface IUnusedPages : IDisposable
{
    /// <summary>Looks again. Exact when the VM stands still; while it runs, the guest may be ahead of what it finds.</summary>
    /// <param name="unused">Set for unused pages, clear for all others.</param>
    /// <param name="written">
    /// All pages that the guest wrote since the look before (since a time before that look, in fact), for a look that costs what has
    /// changed; null when nobody knows.
    /// </param>
    UnusedFigures Refresh(PageBitmap unused, PageBitmap? written);

    /// <summary>Sets the pages that the guest's kernel itself needs all the time, as far as they are known.</summary>
    /// <param name="kernelPages">Gets them.</param>
    /// <param name="unused">As the last <see cref="Refresh"/> filled it.</param>
    void KernelPages(PageBitmap kernelPages, PageBitmap unused);

    /// <summary>Sets the pages that the guest's kernel itself holds for hot; none where it does not tell.</summary>
    /// <param name="hotPages">Gets them.</param>
    /// <param name="unused">As the last <see cref="Refresh"/> filled it.</param>
    void HotPages(PageBitmap hotPages, PageBitmap unused);
}
