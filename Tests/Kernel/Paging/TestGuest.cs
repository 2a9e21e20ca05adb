using System.Diagnostics;
using System.Globalization;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>A process of guest.c: plays the guest, in a process of its own as QEMU is. Its memory is the file `ram` in a directory, which is made if it is not there.</summary>
internal sealed class TestGuest : IWorkingGuest
{
    private static readonly Lazy<string> s_program = new(Compile);

    private readonly Process _process;

    public TestGuest(string directory, long pages, int threads, long used, int userfaultfds = 1)
    {
        RamPath = Path.Combine(directory, "ram");
        if (!File.Exists(RamPath))
        {
            using var file = File.OpenHandle(RamPath, FileMode.CreateNew, FileAccess.ReadWrite);
            SparseFile.SetLength(file, pages * PageIndex.PageSize);
        }

        var start = new ProcessStartInfo(s_program.Value) { RedirectStandardInput = true, RedirectStandardOutput = true };
        foreach (object argument in (object[])[RamPath, pages, threads, used, userfaultfds])
        {
            start.ArgumentList.Add(Convert.ToString(argument, CultureInfo.InvariantCulture)!);
        }

        _process = Process.Start(start)!;
        long[] ready = Expect("ready");
        Address = new((ulong)ready[0]);
        UffdNumbers = [.. ready[1..].Select(number => (int)number)];
    }

    public string RamPath { get; }

    public int ProcessId => _process.Id;

    public IReadOnlyList<int> UffdNumbers { get; }

    public HostAddress Address { get; }

    /// <summary>Sends a line without waiting for its answer: the answer may need a fault to be served.</summary>
    public void Say(string line) => _process.StandardInput.WriteLine(line);

    /// <summary>The numbers of the next line, which begins with <paramref name="word"/>.</summary>
    public long[] Expect(string word)
    {
        var line = _process.StandardOutput.ReadLineAsync();
        if (!line.Wait(TimeSpan.FromSeconds(60)))
        {
            throw new TimeoutException($"The guest has not said '{word}' within 60 s.");
        }

        string[] parts = (line.Result ?? throw new IOException("The guest has ended.")).Split(' ');
        if (parts[0] != word)
        {
            throw new IOException($"The guest said '{line.Result}', not '{word}'.");
        }

        return [.. parts[1..].Select(p => long.Parse(p, CultureInfo.InvariantCulture))];
    }

    public long[] Ask(string line, string answer)
    {
        Say(line);
        return Expect(answer);
    }

    /// <summary>The content of a page in a generation, as guest.c has it; not of those of zeros, nor of tables with an exception.</summary>
    public static void Fill(long page, uint generation, Span<ulong> words)
    {
        for (int i = 0; i < words.Length; i++)
        {
            unchecked
            {
                ulong seed = (ulong)page * 0x9E3779B97F4A7C15;
                ulong age = generation * 0xC2B2AE3D27D4EB4F;
                ulong place = 0x165667B19E3779F9;
                if (generation % 16 == 5)
                {
                    words[i] = seed + age + ((ulong)(i % 8) * place) + ((ulong)(i / 8) * (ulong)(64 + (i % 8)));
                    continue;
                }

                ulong x = seed ^ age ^ ((ulong)i * place);
                x ^= x >> 29;
                x *= 0xBF58476D1CE4E5B9;
                words[i] = x ^ (x >> 32);
            }
        }
    }

    public void Run() => Ask("run", "running");

    public long Operations() => Ask("ops", "ops")[0];

    public (long Pages, long Errors, long BusErrors) StopAndVerify()
    {
        Ask("stop", "stopped");
        long[] v = Ask("verify", "verified");
        return (v[0], v[1], v[2]);
    }

    public void Dispose()
    {
        _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
    }

    private static string Compile()
    {
        string source = Path.Combine(AppContext.BaseDirectory, "Paging", "guest.c");
        string program = Path.Combine(AppContext.BaseDirectory, "Paging", "guest");
        using var gcc = Process.Start("gcc", ["-O2", "-pthread", "-o", program, source]);
        gcc.WaitForExit();
        return gcc.ExitCode == 0 ? program : throw new InvalidOperationException("gcc could not compile guest.c.");
    }
}
