using System.Diagnostics;
using System.Globalization;

namespace FCtrans.Bench.SplitVms;

/// <summary>
/// The server's own benchmark program, redis-benchmark, on the keys that <see cref="ServerLoad"/> made: each as likely as any other, since it
/// knows no other way to choose, and reads and writes by turns in runs of their own.
/// </summary>
internal static class RedisBenchmark
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(3);

    /// <param name="command">GET or SET.</param>
    /// <returns>What it says itself.</returns>
    public static Served Run(string host, int port, string command, int requests, int keys, int valueBytes)
    {
        List<string> words =
        [
            .. Lab.Lab.RedisBenchmark, "-h", host, "-p", Text(port), "-c", Text(ServerLoad.Connections), "-n", Text(requests), "-r", Text(keys), "--csv",
            command, "k__rand_int__",
        ];
        if (command == "SET")
        {
            words.Add(new string('v', valueBytes));
        }

        using Process program = Process.Start(new ProcessStartInfo(words[0], words[1..]) { RedirectStandardOutput = true })!;
        Task<string> reading = program.StandardOutput.ReadToEndAsync();
        if (!program.WaitForExit(s_patience))
        {
            program.Kill();
            throw new TimeoutException($"redis-benchmark has not ended within {s_patience.TotalMinutes} minutes.");
        }

        // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms", and a line of these.
        string[] lines = reading.Result.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        if (program.ExitCode != 0 || lines.Length < 2 || !lines[^2].EndsWith("\"p99_latency_ms\",\"max_latency_ms\"", StringComparison.Ordinal))
        {
            throw new InvalidDataException($"redis-benchmark ended with {program.ExitCode} and said: {reading.Result}");
        }

        double[] figures = Array.ConvertAll(lines[^1].Split(',')[^7..], static f => double.Parse(f.Trim('"', '\r'), CultureInfo.InvariantCulture));
        return new(figures[0], figures[3], figures[5], requests);
    }

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
}
