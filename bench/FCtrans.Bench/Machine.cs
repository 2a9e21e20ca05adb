using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;

namespace FCtrans.Bench;

/// <summary>What a figure depends on besides the program.</summary>
internal static class Machine
{
    public static void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject("machine");
        json.WriteString("processor", Field("/proc/cpuinfo", "model name") ?? RuntimeInformation.ProcessArchitecture.ToString());
        json.WriteNumber("processors", Environment.ProcessorCount);
        json.WriteNumber("memoryBytes", MemoryBytes());
        json.WriteString("kernel", File.ReadAllText("/proc/sys/kernel/osrelease").Trim());
        json.WriteString("operatingSystem", RuntimeInformation.OSDescription);
        json.WriteString("runtime", RuntimeInformation.FrameworkDescription);
        json.WriteEndObject();
    }

    private static long MemoryBytes()
    {
        string? kilobytes = Field("/proc/meminfo", "MemTotal")?.Split(' ')[0];
        return kilobytes is null ? 0 : long.Parse(kilobytes, CultureInfo.InvariantCulture) * 1024;
    }

    private static string? Field(string file, string name)
    {
        foreach (string line in File.ReadLines(file))
        {
            if (line.StartsWith(name, StringComparison.Ordinal) && line.IndexOf(':', StringComparison.Ordinal) is > 0 and var colon)
            {
                return line[(colon + 1)..].Trim();
            }
        }

        return null;
    }
}
