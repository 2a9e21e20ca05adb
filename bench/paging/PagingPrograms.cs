using System.Diagnostics;
using System.Globalization;

namespace FCtrans.Bench;

/// <summary>A program that says a word and numbers on each line of its output. Ends with this object.</summary>
internal sealed class TalkingProgram : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(2);

    private readonly Process _process;

    public TalkingProgram(string file, params IEnumerable<object> arguments)
    {
        var start = new ProcessStartInfo(file) { RedirectStandardInput = true, RedirectStandardOutput = true };
        foreach (object argument in arguments)
        {
            start.ArgumentList.Add(Convert.ToString(argument, CultureInfo.InvariantCulture)!);
        }

        _process = Process.Start(start)!;
    }

    public int ProcessId => _process.Id;

    public TimeSpan ProcessorTime
    {
        get
        {
            _process.Refresh();
            return _process.TotalProcessorTime;
        }
    }

    /// <summary>A C program of a benchmark's folder, compiled once.</summary>
    public static string Compile(string name, string benchmark = "paging")
    {
        string directory = Path.Combine(AppContext.BaseDirectory, benchmark);
        string program = Path.Combine(directory, name);
        using Process gcc = Process.Start("gcc", ["-O2", "-pthread", "-o", program, Path.Combine(directory, name + ".c")]);
        gcc.WaitForExit();
        return gcc.ExitCode == 0 ? program : throw new InvalidOperationException($"gcc could not compile {name}.c.");
    }

    public void Say(string line) => _process.StandardInput.WriteLine(line);

    /// <summary>What follows <paramref name="word"/> on the next line.</summary>
    public string[] Expect(string word)
    {
        Task<string?> line = _process.StandardOutput.ReadLineAsync();
        if (!line.Wait(s_patience))
        {
            throw new TimeoutException($"{_process.ProcessName} has not said '{word}' within {s_patience.TotalSeconds} s.");
        }

        string[] parts = (line.Result ?? throw new IOException($"A program ended instead of saying '{word}'.")).Split(' ');
        return parts[0] == word ? parts[1..] : throw new IOException($"A program said '{line.Result}', not '{word}'.");
    }

    public void Dispose()
    {
        _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
    }
}
