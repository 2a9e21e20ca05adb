using System.Runtime.InteropServices;
using FCtrans.Agent.Memory;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Interop;

/// <summary><c>PAGE_IS_*</c> of <c>linux/fs.h</c>.</summary>
[Flags]
internal enum PageCategories : ulong
{
    None = 0,

    /// <summary><c>PAGE_IS_WPALLOWED</c>: registered for asynchronous write protection.</summary>
    WpAllowed = 1 << 0,

    /// <summary><c>PAGE_IS_WRITTEN</c>: written (or never armed) since it was last write-protected.</summary>
    Written = 1 << 1,

    /// <summary><c>PAGE_IS_FILE</c></summary>
    File = 1 << 2,

    /// <summary><c>PAGE_IS_PRESENT</c></summary>
    Present = 1 << 3,

    /// <summary><c>PAGE_IS_SWAPPED</c></summary>
    Swapped = 1 << 4,

    /// <summary><c>PAGE_IS_PFNZERO</c></summary>
    PfnZero = 1 << 5,

    /// <summary><c>PAGE_IS_HUGE</c></summary>
    Huge = 1 << 6,

    /// <summary><c>PAGE_IS_SOFT_DIRTY</c></summary>
    SoftDirty = 1 << 7,
}

/// <summary><c>PM_SCAN_*</c></summary>
[Flags]
internal enum PagemapFlags : ulong
{
    None = 0,

    /// <summary><c>PM_SCAN_WP_MATCHING</c>: write-protects what it reports, in one step with the look.</summary>
    WpMatching = 1,

    /// <summary><c>PM_SCAN_CHECK_WPASYNC</c>: fails (EPERM) where the range is not registered asynchronously.</summary>
    CheckWpAsync = 2,
}

/// <summary><c>struct page_region</c>: consecutive pages of the same categories.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct PageRegion
{
    public ulong Start;

    /// <summary>The address after the last byte.</summary>
    public ulong End;
    public PageCategories Categories;

    public readonly long Pages => (long)((End - Start) >> PageIndex.PageShift);
}

/// <summary><c>struct pm_scan_arg</c></summary>
[StructLayout(LayoutKind.Sequential)]
internal struct PagemapScanArgument
{
    public ulong Size;
    public ulong Flags;
    public ulong Start;
    public ulong End;
    public ulong WalkEnd;
    public ulong Vector;
    public ulong VectorLength;
    public ulong MaxPages;
    public ulong CategoryInverted;
    public ulong CategoryMask;
    public ulong CategoryAnyOfMask;
    public ulong ReturnMask;
}

/// <summary>
/// Asks <c>/proc/PID/pagemap</c> which pages of a process have which state (<c>PAGEMAP_SCAN</c>, Linux 6.7,
/// Documentation/admin-guide/mm/pagemap.rst). Owns the handle. One thread at a time.
/// <para>
/// Why the harvest loses no write: the kernel looks at a page's entry and arms it anew under the same page table lock; a write
/// is before (and reported now) or after (and reported next time).
/// </para>
/// </summary>
internal sealed unsafe class PagemapScan : IDisposable
{
    /// <summary><c>PAGEMAP_SCAN</c>: <c>_IOWR('f', 16, struct pm_scan_arg)</c>.</summary>
    public const uint Request = 0xC0606610;

    private readonly SafeFileHandle _pagemap;
    private readonly int _fd;

    /// <exception cref="KernelException">No such process, or not allowed to look at it.</exception>
    public PagemapScan(int processId)
    {
        _pagemap = SparseFile.Open($"/proc/{processId}/pagemap", write: false);
        _fd = (int)_pagemap.DangerousGetHandle();
    }

    /// <summary>Whether this kernel has <c>PAGEMAP_SCAN</c>.</summary>
    public static bool Supported()
    {
        try
        {
            using var own = new PagemapScan(Environment.ProcessId);
            PageRegion region;

            // The page of our own stack that holds `region`: always there.
            var position = new HostAddress((ulong)&region & ~(ulong)(PageIndex.PageSize - 1));
            return own.Scan(
                ref position, position + PageIndex.PageSize, new Span<PageRegion>(&region, 1),
                PagemapFlags.None, PageCategories.Present, PageCategories.Present) >= 0;
        }
        catch (KernelException)
        {
            return false;
        }
    }

    /// <summary>
    /// One call: regions from <paramref name="position"/> on whose pages have all categories of <paramref name="mask"/>.
    /// Call again until <paramref name="position"/> has reached <paramref name="end"/>; it stops early when
    /// <paramref name="regions"/> is full. Does not allocate.
    /// </summary>
    /// <param name="position">At a page; moved on to where the kernel stopped, also after an error.</param>
    /// <returns>The count of regions filled in, or -errno.</returns>
    public int Scan(
        ref HostAddress position,
        HostAddress end,
        Span<PageRegion> regions,
        PagemapFlags flags,
        PageCategories mask,
        PageCategories returns)
    {
        fixed (PageRegion* vector = regions)
        {
            var argument = new PagemapScanArgument
            {
                Size = (ulong)sizeof(PagemapScanArgument),
                Flags = (ulong)flags,
                Start = position.Value,
                End = end.Value,
                Vector = (ulong)vector,
                VectorLength = (ulong)regions.Length,
                CategoryMask = (ulong)mask,
                ReturnMask = (ulong)returns,
            };
            int count = Libc.Ioctl(_fd, Request, &argument);
            if (argument.WalkEnd > position.Value)
            {
                position = new HostAddress(argument.WalkEnd);
            }

            return count >= 0 ? count : -Marshal.GetLastPInvokeError();
        }
    }

    /// <summary>
    /// One call of the harvest: regions written since they were last armed, armed anew in the same step. The range must be
    /// registered with <see cref="UffdFeatures.Tracking"/> and <see cref="UffdRegisterMode.Wp"/>; the first harvest after
    /// that reports every page of it.
    /// </summary>
    /// <returns>As <see cref="Scan"/>.</returns>
    public int HarvestWritten(ref HostAddress position, HostAddress end, Span<PageRegion> regions)
        => Scan(
            ref position, end, regions,
            PagemapFlags.WpMatching | PagemapFlags.CheckWpAsync, PageCategories.Written, PageCategories.Written);

    /// <summary>As <see cref="HarvestWritten"/>, but arms nothing: what a harvest would report now.</summary>
    public int PeekWritten(ref HostAddress position, HostAddress end, Span<PageRegion> regions)
        => Scan(
            ref position, end, regions, PagemapFlags.CheckWpAsync, PageCategories.Written, PageCategories.Written);

    public void Dispose() => _pagemap.Dispose();
}
