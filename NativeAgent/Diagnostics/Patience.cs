using System.Globalization;

namespace FCtrans.Agent.Diagnostics;

/// <summary>
/// Long times that a worker waits for somebody before it gives up, by name, so that a test need not: the environment variable FCTRANS_PATIENCE or the file
/// <c>/run/fctrans/patience</c> (which only root can write) may have a list such as <c>main.first-contact=2;sub.first-contact=2</c>, in seconds.
/// Read each time, a few times in a worker's life.
/// </summary>
internal static class Patience
{
    private const string ListFile = "/run/fctrans/patience";

    public static TimeSpan Of(string name, TimeSpan otherwise)
    {
        string? list = Environment.GetEnvironmentVariable("FCTRANS_PATIENCE") ?? (File.Exists(ListFile) ? File.ReadAllText(ListFile) : null);
        foreach (string entry in (list ?? "").Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
        {
            string[] parts = entry.Split('=', 2);
            if (parts.Length == 2 && parts[0] == name && double.TryParse(parts[1], NumberStyles.Float, CultureInfo.InvariantCulture, out double seconds))
            {
                return TimeSpan.FromSeconds(seconds);
            }
        }

        return otherwise;
    }
}
