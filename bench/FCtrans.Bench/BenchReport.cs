using System.Globalization;
using System.Text.Json;

namespace FCtrans.Bench;

internal enum Comparison
{
    AtMost,
    AtLeast,
}

/// <summary>The figures of one benchmark run, and the JSON file that is its result (bench/README.md describes it).</summary>
internal sealed class BenchReport(string benchmark)
{
    private readonly List<Figure> _figures = [];
    private readonly List<string> _notes = [];

    public string Benchmark { get; } = benchmark;

    /// <summary>A figure that is only told.</summary>
    /// <param name="unit">As a person writes it: ms, µs, MB/s, pages/s, bytes.</param>
    /// <param name="samples">One value a run, at least one, all finite.</param>
    public void Add(string name, string unit, IReadOnlyList<double> samples) => Add(name, unit, samples, null, 0);

    /// <summary>A figure whose median is to be at most, or at least, <paramref name="target"/>.</summary>
    public void Add(string name, string unit, IReadOnlyList<double> samples, Comparison comparison, double target) =>
        Add(name, unit, samples, (Comparison?)comparison, target);

    /// <summary>What a reader has to know who looks for a figure that is not there. Said once, however often it is told.</summary>
    public void Note(string note)
    {
        if (!_notes.Contains(note))
        {
            _notes.Add(note);
        }
    }

    /// <summary>Writes the file whole, or leaves the one that was there.</summary>
    public void WriteJson(string path)
    {
        string temporary = path + ".part";
        using (FileStream file = File.Create(temporary))
        using (var json = new Utf8JsonWriter(file, new JsonWriterOptions { Indented = true }))
        {
            json.WriteStartObject();
            json.WriteString("benchmark", Benchmark);
            Machine.Write(json);
            json.WriteStartArray("results");
            foreach (Figure figure in _figures)
            {
                figure.Write(json);
            }

            json.WriteEndArray();
            json.WriteStartArray("notes");
            _notes.ForEach(json.WriteStringValue);
            json.WriteEndArray();
            json.WriteEndObject();
        }

        File.Move(temporary, path, overwrite: true);
    }

    public void WriteTable(TextWriter to)
    {
        int width = Math.Max(6, _figures.Count == 0 ? 0 : _figures.Max(static f => f.Name.Length));
        to.WriteLine($"{"figure".PadRight(width)}  {"median",12}  {"min",12}  {"max",12}  {"unit",-10}  target");
        foreach (Figure f in _figures)
        {
            string target = f.Comparison is { } c ? $"{(c == Comparison.AtMost ? "≤" : "≥")} {Number(f.Target)}  {(f.Met ? "met" : "MISSED")}" : "";
            to.WriteLine($"{f.Name.PadRight(width)}  {Number(f.Median),12}  {Number(f.Min),12}  {Number(f.Max),12}  {f.Unit,-10}  {target}".TrimEnd());
        }

        _notes.ForEach(note => to.WriteLine($"note: {note}"));
    }

    private void Add(string name, string unit, IReadOnlyList<double> samples, Comparison? comparison, double target)
    {
        if (samples.Count == 0 || samples.Any(static s => !double.IsFinite(s)))
        {
            throw new FormatException($"The figure '{name}' needs at least one sample, and numbers only.");
        }

        _figures.Add(new Figure(name, unit, [.. samples.Order()], comparison, target));
    }

    private static string Number(double value) => value.ToString(Math.Abs(value) >= 100 ? "N0" : "0.###", CultureInfo.InvariantCulture);

    private sealed record Figure(string Name, string Unit, double[] Sorted, Comparison? Comparison, double Target)
    {
        public double Median => Sorted.Length % 2 == 1 ? Sorted[Sorted.Length / 2] : (Sorted[Sorted.Length / 2 - 1] + Sorted[Sorted.Length / 2]) / 2;

        public double Min => Sorted[0];

        public double Max => Sorted[^1];

        public bool Met => Comparison == Bench.Comparison.AtMost ? Median <= Target : Median >= Target;

        public void Write(Utf8JsonWriter json)
        {
            json.WriteStartObject();
            json.WriteString("name", Name);
            json.WriteString("unit", Unit);
            json.WriteNumber("median", Median);
            json.WriteNumber("min", Min);
            json.WriteNumber("max", Max);
            json.WriteNumber("runs", Sorted.Length);
            if (Comparison is { } comparison)
            {
                json.WriteString("comparison", comparison == Bench.Comparison.AtMost ? "atMost" : "atLeast");
                json.WriteNumber("target", Target);
                json.WriteBoolean("met", Met);
            }

            json.WriteEndObject();
        }
    }
}
