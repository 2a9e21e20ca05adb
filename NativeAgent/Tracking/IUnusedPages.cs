using FCtrans.Agent.Introspection;

namespace FCtrans.Agent.Tracking;

/// <summary>Tells which pages of a VM hold nothing that the guest needs. Used by one thread.</summary>
internal interface IUnusedPages : IDisposable
{
    /// <summary>Looks again. Exact when the VM stands still; while it runs, the guest may be ahead of what it finds.</summary>
    /// <param name="unused">Set for unused pages, clear for all others.</param>
    UnusedFigures Refresh(PageBitmap unused);

    /// <summary>Sets the pages that the guest's kernel itself needs all the time, as far as they are known.</summary>
    /// <param name="kernelPages">Gets them.</param>
    /// <param name="unused">As the last <see cref="Refresh"/> filled it.</param>
    void KernelPages(PageBitmap kernelPages, PageBitmap unused);
}
