namespace FCtrans.Agent.Introspection;

/// <summary>What a guest's kernel itself counts, in pages: the MemTotal and MemFree of its <c>/proc/meminfo</c>. It checks our own count.</summary>
/// <param name="Total">All that it manages.</param>
/// <param name="Free">In its buddy allocator, but for what its processors have not folded in yet.</param>
internal readonly record struct GuestCounters(long Total, long Free)
{
    /// <summary>False when the kernel does not tell where they are (before Linux 6.0, or without symbols of data), or they make no sense.</summary>
    public static bool TryRead(GuestKernel kernel, out GuestCounters counters)
    {
        counters = default;
        // NR_FREE_PAGES is the first of enum zone_stat_item in every kernel that tells its symbols.
        if (kernel.Symbols is not { } symbols || !symbols.TryGet("_totalram_pages", out var totalAt) || !symbols.TryGet("vm_zone_stat", out var freeAt) ||
            !kernel.PageTables.TryRead(totalAt, out long total) || !kernel.PageTables.TryRead(freeAt, out long free) ||
            total <= 0 || total > kernel.Memory.Ram.PageCount || free > total)
        {
            return false;
        }

        counters = new(total, Math.Max(0, free));
        return true;
    }

    /// <summary>
    /// Whether so many pages can be free as a look at them said. A guest that runs frees and takes many while a look lasts; far more
    /// than its kernel knows of would mean that its structures were misread.
    /// </summary>
    /// <param name="pages">Seen in the buddy allocator.</param>
    public bool Allows(long pages) => pages <= Free + (Total / 16) + 8192;
}
