using System.Globalization;
using System.Text.RegularExpressions;

namespace FCtrans.Agent.Hypervisor;

/// <summary>A part of the guest's physical bus that lies in a memory region of QEMU.</summary>
/// <param name="Start">Guest-physical.</param>
/// <param name="Region">The region's name: a memory backend's id, or some ROM's.</param>
/// <param name="Offset">Where in the region it begins, in bytes.</param>
internal readonly record struct MemoryTreeRange(ulong Start, ulong Bytes, string Region, ulong Offset);

/// <summary>
/// Reads <c>info mtree -f</c>: which part of each RAM block appears where on the guest's physical bus, as QEMU itself has laid
/// it out. Parts that are read-only now (shadowed ROM below 1 MiB) belong to it too.
/// </summary>
internal static partial class MemoryTree
{
    private const int MaximumRanges = 4096;

    /// <summary>The RAM and ROM ranges of the system address space, sorted by start.</summary>
    /// <exception cref="FormatException">The text shows no such address space, or one that makes no sense.</exception>
    public static IReadOnlyList<MemoryTreeRange> ParseFlatView(string text)
    {
        var ranges = new List<MemoryTreeRange>();
        bool systemView = false;
        bool found = false;
        foreach (var rawLine in text.AsSpan().EnumerateLines())
        {
            var line = rawLine.TrimEnd();
            if (line.StartsWith("FlatView #", StringComparison.Ordinal))
            {
                if (found)
                {
                    break;
                }

                systemView = false;
            }
            else if (line.TrimStart().StartsWith("AS \"memory\",", StringComparison.Ordinal))
            {
                // The CPUs' own address spaces share this view, or differ from it by system management memory only.
                systemView = found = true;
            }
            else if (systemView && RangeLine().Match(line.ToString()) is { Success: true } match)
            {
                Add(ranges, match);
            }
        }

        if (!found || ranges.Count == 0)
        {
            throw new FormatException("QEMU's memory tree shows no system address space with memory.");
        }

        return ranges;
    }

    private static void Add(List<MemoryTreeRange> ranges, Match match)
    {
        if (match.Groups["kind"].Value is not ("ram" or "rom"))
        {
            return;
        }

        ulong start = Hex(match.Groups["start"]);
        ulong last = Hex(match.Groups["last"]);
        ulong offset = match.Groups["offset"].Success ? Hex(match.Groups["offset"]) : 0;
        ulong bytes = last - start + 1;
        if (last < start || bytes == 0 || offset + bytes < offset
            || (ranges.Count > 0 && start < ranges[^1].Start + ranges[^1].Bytes)
            || ranges.Count >= MaximumRanges)
        {
            throw new FormatException($"QEMU's memory tree makes no sense at 0x{start:x}.");
        }

        ranges.Add(new MemoryTreeRange(start, bytes, match.Groups["name"].Value, offset));
    }

    private static ulong Hex(Group group) => ulong.Parse(group.ValueSpan, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);

    /// <summary><c>  0000000100000000-000000017fffffff (prio 0, ram): ram0 @0000000080000000 KVM</c></summary>
    [GeneratedRegex(
        @"^\s+(?<start>[0-9a-f]{16})-(?<last>[0-9a-f]{16}) \(prio -?[0-9]+, (?<kind>[^)]+)\): (?<name>.*?)(?: @(?<offset>[0-9a-f]{16}))?(?: KVM)?$",
        RegexOptions.CultureInvariant)]
    private static partial Regex RangeLine();
}
