using System.Text;
using FCtrans.Contracts;
using FCtrans.Loader;

namespace FCtrans.Commands;

/// <summary>
/// The map of a VM's memory as lines of text: a cell for each part of it, and a legend. Each kind has a letter and a colour, so that
/// the picture says the same without colours.
/// </summary>
internal sealed class MemoryMapPicture
{
    private const int LabelWidth = 10;
    private const int LegendLines = 5;
    private const ulong PageBytes = 4096;
    private const string RemoteLetters = "123456789ABCDEFGHIJKLMNOPQRSTUV";

    private static readonly Look s_neverTouched = new('.', 236, 245);
    private static readonly Look s_free = new('-', 71, 16);
    private static readonly Look s_ballooned = new('b', 139, 16);
    private static readonly Look s_used = new('#', 32, 16);
    private static readonly Look s_hot = new('*', 167, 16);
    private static readonly Look s_lost = new('X', 201, 16);
    private static readonly byte[] s_remoteColours = [178, 180, 215, 136, 187, 143, 222, 173];

    private readonly bool _colour;
    private readonly int _columns;
    private readonly int _rows;

    /// <param name="width">Characters in a line; at least 20 are taken.</param>
    /// <param name="height">Lines, the legend included; at least 8 are taken.</param>
    /// <param name="colour">Whether colours are wanted beside the letters.</param>
    public MemoryMapPicture(int width, int height, bool colour)
    {
        _colour = colour;
        _columns = Math.Max(20, width) - LabelWidth;
        _rows = Math.Max(8, height) - LegendLines;
    }

    /// <summary>How much memory a cell has to stand for so that all of it fits.</summary>
    public ulong BytesInCell(ulong memoryBytes)
    {
        // A row less: a part of the last one is lost at the end of each memory block and at the hole below 4 GiB.
        ulong cells = (ulong)(_columns * Math.Max(1, _rows - 1));
        ulong bytes = (memoryBytes + cells - 1) / cells;
        return Math.Max(1, (bytes + PageBytes - 1) / PageBytes) * PageBytes;
    }

    /// <param name="vm">The VM.</param>
    /// <param name="head">What the map says of all of it.</param>
    /// <param name="cells">The parts, one a cell.</param>
    public IEnumerable<string> Draw(KvmVm vm, MemoryMapHead head, IReadOnlyList<VmMemoryRange> cells)
    {
        ulong page = head.Memory.PageSizeBytes == 0 ? PageBytes : head.Memory.PageSizeBytes;
        yield return Fit($"{vm.Name} on {vm.HostName}: {Display.Bytes(vm.MemoryBytes)}, {Display.Bytes(head.Memory.UsedPages * page)} used; "
            + $"a cell is {Display.Bytes(cells.Count > 0 ? cells[0].LengthBytes : 0)}");
        for (int first = 0; first < cells.Count; first += _columns)
        {
            yield return Display.Bytes(cells[first].StartBytes).PadLeft(LabelWidth - 1) + " " + Row(cells, first, Math.Min(cells.Count, first + _columns));
        }

        foreach (string line in Legend(vm, head, cells))
        {
            yield return line;
        }

        if (head.Memory.Reason.Length > 0)
        {
            yield return Fit($"Free memory is not known: {head.Memory.Reason}");
        }
    }

    private static Look LookOf(VmMemoryRange cell)
    {
        switch (cell.Kind)
        {
            case VmMemoryKind.NeverTouched:
                return s_neverTouched;
            case VmMemoryKind.Free:
                return s_free;
            case VmMemoryKind.Ballooned:
                return s_ballooned;
            default:
                return cell.PlaceIndex switch
                {
                    > 0 => Remote(cell.PlaceIndex - 1),
                    -2 => s_lost,
                    _ => cell.HotBytes * 2 >= cell.UsedBytes && cell.HotBytes > 0 ? s_hot : s_used,
                };
        }
    }

    private static Look Remote(int sub) => new(RemoteLetters[sub % RemoteLetters.Length], s_remoteColours[sub % s_remoteColours.Length], 16);

    private string Row(IReadOnlyList<VmMemoryRange> cells, int first, int end)
    {
        var text = new StringBuilder();
        Look? current = null;
        for (int i = first; i < end; i++)
        {
            Look look = LookOf(cells[i]);
            if (_colour && look != current)
            {
                text.Append(look.Begin);
                current = look;
            }

            text.Append(look.Letter);
        }

        return text.Append(_colour ? Look.End : "").ToString();
    }

    private IEnumerable<string> Legend(KvmVm vm, MemoryMapHead head, IReadOnlyList<VmMemoryRange> cells)
    {
        ulong Sum(Func<VmMemoryRange, ulong> figure) => cells.Aggregate(0UL, (sum, cell) => sum + figure(cell));
        var entries = new List<(Look Look, string Text)>
        {
            (s_neverTouched, $"never touched {Display.Bytes(Sum(c => c.NeverTouchedBytes))}"),
            (s_free, $"free {Display.Bytes(Sum(c => c.FreeBytes))}"),
        };
        if (Sum(c => c.BalloonedBytes) is > 0 and var ballooned)
        {
            entries.Add((s_ballooned, $"ballooned {Display.Bytes(ballooned)}"));
        }

        bool split = head.Hosts.Count > 0;
        entries.Add((s_used, split ? $"used, on {vm.HostName} (holds {Display.Bytes(Sum(c => c.ResidentBytes))})" : $"used {Display.Bytes(Sum(c => c.UsedBytes))}"));
        if (head.Hot.Length > 0)
        {
            entries.Add((s_hot, $"hot {Display.Bytes(Sum(c => c.HotBytes))}"));
        }

        for (int i = 0; i < head.Hosts.Count; i++)
        {
            int sub = i;
            entries.Add((Remote(sub), $"used, on {head.Hosts[sub]} (holds {Display.Bytes(Sum(c => c.RemoteBytesBySubHost[sub]))})"));
        }

        if (Sum(c => c.LostBytes) is > 0 and var lost)
        {
            entries.Add((s_lost, $"lost {Display.Bytes(lost)}"));
        }

        return Wrap(entries);
    }

    private IEnumerable<string> Wrap(List<(Look Look, string Text)> entries)
    {
        int width = _columns + LabelWidth;
        var line = new StringBuilder();
        int length = 0;
        foreach ((Look look, string whole) in entries)
        {
            string text = whole.Length + 2 > width ? whole[..(width - 2)] : whole;
            int needed = text.Length + 2 + (length > 0 ? 3 : 0);
            if (length > 0 && length + needed > width)
            {
                yield return line.ToString();
                line.Clear();
                length = 0;
                needed -= 3;
            }

            line.Append(length > 0 ? "   " : "").Append(_colour ? look.Begin + look.Letter + Look.End : look.Letter.ToString()).Append(' ').Append(text);
            length += needed;
        }

        yield return line.ToString();
    }

    private string Fit(string line) => line.Length > _columns + LabelWidth ? line[..(_columns + LabelWidth)] : line;

    /// <summary>How one kind of cell looks: its letter, and of xterm's 256 colours its own and the letter's.</summary>
    private sealed record Look(char Letter, byte Colour, byte LetterColour)
    {
        public const string End = "\u001b[0m";

        public string Begin => $"\u001b[38;5;{LetterColour};48;5;{Colour}m";
    }
}
