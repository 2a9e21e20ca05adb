using FCtrans.Agent.Introspection;

namespace FCtrans.Agent.Tracking;

/// <summary>Takes every page for used: the baseline that a migration with tracking is compared with.</summary>
internal sealed class EverythingUsed : IUnusedPages
{
    public UnusedFigures Refresh(PageBitmap unused, PageBitmap? written)
    {
        unused.Clear();
        return new UnusedFigures { Method = "off", Reason = "", GuestKernel = "", Total = unused.PageCount };
    }

    public void HotPages(PageBitmap hotPages, PageBitmap unused)
    {
    }

    public void KernelPages(PageBitmap kernelPages, PageBitmap unused)
    {
        // Nothing is known of the guest.
    }

    public void Dispose()
    {
    }
}
