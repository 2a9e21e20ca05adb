using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Introspection;

/// <summary>Where a guest's kernel keeps its per-CPU lists of free pages; all of it is the guest's word. Offsets and lengths in bytes.</summary>
internal sealed record PerCpuLayout
{
    /// <summary><c>node_data</c>, an array of pointers, or the only node itself.</summary>
    public required GuestVirtualAddress NodeTable { get; init; }

    public required bool NodesArePointers { get; init; }

    public required int Nodes { get; init; }

    public required ulong NodeZonesOffset { get; init; }

    public required ulong NodeZoneCountOffset { get; init; }

    public required ulong ZoneBytes { get; init; }

    public required ulong ZonePageSetOffset { get; init; }

    /// <summary><c>__per_cpu_offset</c>: what is added to a per-CPU pointer, for each processor.</summary>
    public required GuestVirtualAddress ProcessorOffsets { get; init; }

    /// <summary><c>nr_cpu_ids</c>, 32 bits.</summary>
    public required GuestVirtualAddress ProcessorCount { get; init; }

    /// <summary>Of a <c>struct per_cpu_pages</c>.</summary>
    public required int StructureBytes { get; init; }

    public required int CountOffset { get; init; }

    public required int ListsOffset { get; init; }

    public required int Lists { get; init; }

    /// <summary>Of the <c>struct list_head</c> in a <c>struct page</c>.</summary>
    public required int PageLinkOffset { get; init; }

    public required int PageReferencesOffset { get; init; }

    /// <summary>False when the kernel has no BTF or no symbols, or when they make no sense.</summary>
    public static bool TryRead(GuestKernel kernel, out PerCpuLayout layout)
    {
        layout = null!;
        var symbols = kernel.Symbols;
        if (symbols is null || !symbols.TryGet("__per_cpu_offset", out var offsets) || !symbols.TryGet("nr_cpu_ids", out var count) ||
            !TryTypes(kernel, symbols, out var types))
        {
            return false;
        }

        var info = kernel.Info;
        if (!TryNodes(kernel, symbols, out var nodeTable, out bool pointers, out int nodes) ||
            !info.TrySize("zone", out ulong zoneBytes) ||
            !info.TryOffset("pglist_data.node_zones", out ulong nodeZones) || !info.TryOffset("pglist_data.nr_zones", out ulong zoneCount) ||
            !types.TryMember("zone", "per_cpu_pageset", out int pageSet, out _, out _) ||
            !types.TrySize("zone", out int typedZoneBytes) || (ulong)typedZoneBytes != zoneBytes ||
            !types.TrySize("page", out int pageBytes) || pageBytes != kernel.Pages.Size ||
            !types.TrySize("per_cpu_pages", out int structureBytes) ||
            !types.TryMember("per_cpu_pages", "count", out int countOffset, out _, out _) ||
            !types.TryMember("per_cpu_pages", "lists", out int lists, out int length, out int listBytes) || listBytes != 16 ||
            !types.TryMember("page", "_refcount", out int references, out _, out _) ||
            (!types.TryMember("page", "pcp_list", out int link, out _, out _) && !types.TryMember("page", "lru", out link, out _, out _)))
        {
            return false;
        }

        layout = new()
        {
            NodeTable = nodeTable,
            NodesArePointers = pointers,
            Nodes = nodes,
            NodeZonesOffset = nodeZones,
            NodeZoneCountOffset = zoneCount,
            ZoneBytes = zoneBytes,
            ZonePageSetOffset = (ulong)pageSet,
            ProcessorOffsets = offsets,
            ProcessorCount = count,
            StructureBytes = structureBytes,
            CountOffset = countOffset,
            ListsOffset = lists,
            Lists = length,
            PageLinkOffset = link,
            PageReferencesOffset = references,
        };
        return true;
    }

    /// <summary>The kernel's own types; false when it has none, or they make no sense.</summary>
    public static bool TryTypes(GuestKernel kernel, out Btf types)
    {
        types = null!;
        return kernel.Symbols is { } symbols && TryTypes(kernel, symbols, out types);
    }

    private static bool TryTypes(GuestKernel kernel, KernelSymbols symbols, out Btf types)
    {
        types = null!;
        if (!symbols.TryGet("__start_BTF", out var start) || !symbols.TryGet("__stop_BTF", out var stop) ||
            stop.Value <= start.Value || stop.Value - start.Value > Btf.MaxBytes)
        {
            return false;
        }

        byte[] data = new byte[stop.Value - start.Value];
        return kernel.PageTables.TryRead(start, data) && Btf.TryParse(data, out types);
    }

    private static bool TryNodes(GuestKernel kernel, KernelSymbols symbols, out GuestVirtualAddress table, out bool pointers, out int nodes)
    {
        var info = kernel.Info;
        pointers = true;
        nodes = 1;
        if (info.TrySymbol("node_data", out ulong address) && info.TryLength("node_data", out ulong length))
        {
            table = new(address);
            nodes = (int)Math.Min(length, int.MaxValue);
            return true;
        }

        if (symbols.TryGet("node_data", out table) && symbols.TryGet("nr_node_ids", out var countAt) &&
            kernel.PageTables.TryRead(countAt, out uint count))
        {
            nodes = (int)Math.Min(count, int.MaxValue);
            return true;
        }

        pointers = false;
        if (info.TrySymbol("contig_page_data", out address))
        {
            table = new(address);
            return true;
        }

        return symbols.TryGet("contig_page_data", out table);
    }
}
