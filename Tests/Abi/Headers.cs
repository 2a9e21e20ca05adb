using System.Diagnostics;
using System.Globalization;
using Xunit;

namespace FCtrans.Abi.Tests;

/// <summary>What abi.c, compiled and run here, says of this machine's headers.</summary>
public sealed class Headers
{
    private readonly Dictionary<string, ulong> _values = [];

    public Headers()
    {
        string program = Path.Combine(AppContext.BaseDirectory, "abi");
        string source = Path.Combine(AppContext.BaseDirectory, "abi.c");
        using (var compiler = Process.Start("gcc", ["-Wall", "-Wextra", "-Werror", "-o", program, source]))
        {
            compiler.WaitForExit();
            Assert.Equal(0, compiler.ExitCode);
        }

        using var run = Process.Start(new ProcessStartInfo(program) { RedirectStandardOutput = true })!;
        while (run.StandardOutput.ReadLine() is { } line)
        {
            int blank = line.LastIndexOf(' ');
            _values.Add(line[..blank], ulong.Parse(line.AsSpan(blank + 1), CultureInfo.InvariantCulture));
        }

        run.WaitForExit();
        Assert.NotEmpty(_values);
    }

    public ulong this[string name]
        => _values.TryGetValue(name, out ulong value) ? value : throw new KeyNotFoundException($"abi.c does not print {name}.");

    public void AssertSame(string name, long value) => Assert.Equal((name, this[name]), (name, (ulong)value));

    public void AssertSame(string name, ulong value) => Assert.Equal((name, this[name]), (name, value));
}
