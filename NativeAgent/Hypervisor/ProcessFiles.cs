using System.Globalization;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Hypervisor;

/// <summary>One line of <c>/proc/PID/maps</c>.</summary>
/// <param name="Device">As <c>major:minor</c> in hexadecimal, the way the file shows it.</param>
internal readonly record struct ProcessMapping(
    ulong Start, ulong End, string Permissions, ulong Offset, string Device, ulong Inode, string Path)
{
    public bool IsSharedWritable => Permissions.Length >= 4 && Permissions[1] == 'w' && Permissions[3] == 's';

    /// <summary>Where the file's first byte would be.</summary>
    public HostAddress FileStart => new(Start - Offset);
}

/// <summary>An open descriptor of a process and what it stands for.</summary>
internal readonly record struct ProcessDescriptor(int Number, string Target);

/// <summary>
/// What <c>/proc/PID</c> tells. The process may end at any moment: then lists are empty and values missing, never an exception
/// for that alone.
/// </summary>
internal static class ProcessFiles
{
    /// <summary>Longer command lines are cut: the kernel allows 2 MiB of arguments by default.</summary>
    private const int MaximumBytes = 4 << 20;

    public static IReadOnlyList<string> CommandLine(int processId)
    {
        string text = ReadText($"/proc/{processId}/cmdline");
        return text.Length == 0 ? [] : text.TrimEnd('\0').Split('\0');
    }

    /// <summary>When it started, in clock ticks since boot: with the process id it names a process for ever. 0 if it has ended.</summary>
    public static ulong StartTime(int processId)
    {
        string text = ReadText($"/proc/{processId}/stat");

        // The second field, the name in brackets, may hold anything, brackets and blanks too: count from the last bracket.
        string[] fields = text[(text.LastIndexOf(')') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return fields.Length > 19 && ulong.TryParse(fields[19], NumberStyles.None, CultureInfo.InvariantCulture, out ulong ticks)
            ? ticks
            : 0;
    }

    public static IReadOnlyList<ProcessMapping> Mappings(int processId)
    {
        var mappings = new List<ProcessMapping>();
        foreach (var line in ReadText($"/proc/{processId}/maps").AsSpan().EnumerateLines())
        {
            if (TryParseMapping(line.ToString(), out var mapping))
            {
                mappings.Add(mapping);
            }
        }

        return mappings;
    }

    public static IReadOnlyList<ProcessDescriptor> Descriptors(int processId)
    {
        var descriptors = new List<ProcessDescriptor>();
        try
        {
            foreach (string path in Directory.EnumerateFileSystemEntries($"/proc/{processId}/fd"))
            {
                if (int.TryParse(Path.GetFileName(path), NumberStyles.None, CultureInfo.InvariantCulture, out int number)
                    && LinkTarget(path) is { } target)
                {
                    descriptors.Add(new ProcessDescriptor(number, target));
                }
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
        }

        return descriptors;
    }

    /// <summary>Its program, without the kernel's note that the file was replaced since; empty if it can't be seen.</summary>
    public static string Executable(int processId)
    {
        string target = LinkTarget($"/proc/{processId}/exe") ?? "";
        const string Deleted = " (deleted)";
        return target.EndsWith(Deleted, StringComparison.Ordinal) ? target[..^Deleted.Length] : target;
    }

    public static string? LinkTarget(string path)
    {
        try
        {
            return new FileInfo(path).LinkTarget;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    public static bool TryParseMapping(string line, out ProcessMapping mapping)
    {
        mapping = default;

        // start-end perms offset device inode          path (to the end of the line, blanks and all)
        string[] fields = line.Split(' ', 6, StringSplitOptions.RemoveEmptyEntries);
        if (fields.Length < 5 || fields[0].Split('-') is not [var start, var end]
            || !TryHex(start, out ulong from) || !TryHex(end, out ulong to) || to <= from
            || !TryHex(fields[2], out ulong offset)
            || !ulong.TryParse(fields[4], NumberStyles.None, CultureInfo.InvariantCulture, out ulong inode))
        {
            return false;
        }

        mapping = new ProcessMapping(from, to, fields[1], offset, fields[3], inode, fields.Length > 5 ? fields[5].TrimStart() : "");
        return true;
    }

    /// <summary>A device number as <c>/proc/PID/maps</c> writes it.</summary>
    public static string FormatDevice(ulong device)
    {
        ulong major = ((device >> 8) & 0xfff) | ((device >> 32) & ~0xfffUL);
        ulong minor = (device & 0xff) | ((device >> 12) & ~0xffUL & 0xffffffff);
        return $"{major:x2}:{minor:x2}";
    }

    public static string ReadText(string path)
    {
        try
        {
            using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite, bufferSize: 0);
            using var collected = new MemoryStream();
            var buffer = new byte[64 << 10];
            int count;
            while (collected.Length < MaximumBytes && (count = stream.Read(buffer)) > 0)
            {
                collected.Write(buffer, 0, count);
            }

            return System.Text.Encoding.UTF8.GetString(collected.GetBuffer(), 0, (int)collected.Length);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    private static bool TryHex(string text, out ulong value)
        => ulong.TryParse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out value);
}
