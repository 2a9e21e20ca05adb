using System.Globalization;

namespace FCtrans.Bench;

/// <summary><c>FCtrans.Bench NAME --output FILE [ARGUMENT…]</c> runs a benchmark; <c>FCtrans.Bench report NAME --output FILE</c> writes the report of figures that a script measured.</summary>
internal static class Program
{
    private static readonly Dictionary<string, Action<BenchReport, string[]>> Benchmarks = new(StringComparer.Ordinal)
    {
        ["introspection"] = IntrospectionBenchmark.Run,
        ["page-sets"] = static (report, _) => PageSetsBenchmark.Run(report),
        ["migration"] = Migrations.MigrationBenchmark.Run,
        ["paging"] = PagingScenarios.Run,
    };

    private static int Main(string[] args)
    {
        try
        {
            switch (args)
            {
                case ["report", var name, "--output", var output]:
                    var measured = new BenchReport(name);
                    while (Console.In.ReadLine() is { } line)
                    {
                        AddMeasured(measured, line);
                    }

                    return Finish(measured, output);

                case ["paging-store", .. var rest]:
                    return PagingStore.Run(rest);

                case [var name, "--output", var output, .. var more] when Benchmarks.TryGetValue(name, out Action<BenchReport, string[]>? run):
                    var report = new BenchReport(name);
                    run(report, more);
                    return Finish(report, output);

                default:
                    Console.Error.WriteLine($"usage: FCtrans.Bench NAME --output FILE; NAME is one of: {string.Join(", ", Benchmarks.Keys.Order(StringComparer.Ordinal))}");
                    return 64;
            }
        }
        catch (FormatException e)
        {
            Console.Error.WriteLine(e.Message);
            return 65;
        }
    }

    private static int Finish(BenchReport report, string output)
    {
        report.WriteTable(Console.Out);
        report.WriteJson(output);
        return 0;
    }

    /// <summary>One figure a line, tabs between: name, unit, atMost or atLeast or nothing, target or nothing, the samples.</summary>
    private static void AddMeasured(BenchReport report, string line)
    {
        string[] fields = line.Split('\t');
        if (fields.Length < 5)
        {
            throw new FormatException($"A figure needs a name, a unit, a comparison, a target and at least one sample, with tabs between: '{line}'");
        }

        double[] samples = Array.ConvertAll(fields[4..], static s => double.Parse(s, NumberStyles.Float, CultureInfo.InvariantCulture));
        if (fields[2].Length == 0)
        {
            report.Add(fields[0], fields[1], samples);
            return;
        }

        Comparison comparison = fields[2] switch
        {
            "atMost" => Comparison.AtMost,
            "atLeast" => Comparison.AtLeast,
            _ => throw new FormatException($"A comparison is atMost or atLeast, not '{fields[2]}'."),
        };
        report.Add(fields[0], fields[1], samples, comparison, double.Parse(fields[3], NumberStyles.Float, CultureInfo.InvariantCulture));
    }
}
