using System.Globalization;
using FCtrans.Bench.Migrations;
using FCtrans.Bench.SplitVms;

namespace FCtrans.Bench;

/// <summary>
/// What the benchmark <c>paging</c> consists of. Arguments: <c>runs=N</c> (of the scenarios with whole VMs; 3 if not given) and names of
/// scenarios; without names all run.
/// </summary>
internal static class PagingScenarios
{
    private static readonly (string Name, Action<BenchReport, BenchHosts, int> Run)[] s_ofVms =
        [("recovery", Recovery.Run), ("fresh", FreshMemory.Run), ("server", RealServer.Run), ("postcopy", BesidePostCopy.Run)];

    public static void Run(BenchReport report, string[] arguments)
    {
        string[] names = [.. arguments.Where(a => !a.Contains('=', StringComparison.Ordinal))];
        if (names.FirstOrDefault(n => n != "faults" && !s_ofVms.Any(s => s.Name == n)) is { } unknown)
        {
            throw new FormatException($"There is no scenario '{unknown}': they are faults, {string.Join(", ", s_ofVms.Select(s => s.Name))}.");
        }

        int runs = arguments.FirstOrDefault(a => a.StartsWith("runs=", StringComparison.Ordinal)) is { } given
            ? int.Parse(given[5..], CultureInfo.InvariantCulture)
            : 3;
        bool Wants(string name) => names.Length == 0 || names.Contains(name);
        if (Wants("faults"))
        {
            Console.WriteLine("-- faults");
            PagingBenchmark.Run(report);
        }

        if (!s_ofVms.Any(s => Wants(s.Name)))
        {
            return;
        }

        using var hosts = new BenchHosts("a", "b", "sub1", "sub2");
        foreach (var (name, run) in s_ofVms)
        {
            if (Wants(name))
            {
                Console.WriteLine($"-- {name}");
                run(report, hosts, runs);
            }
        }
    }
}
