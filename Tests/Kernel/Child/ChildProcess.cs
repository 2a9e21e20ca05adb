using System.Diagnostics;
using System.Globalization;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using Microsoft.Win32.SafeHandles;
using Xunit;

namespace FCtrans.Kernel.Tests.Child;

/// <summary>A running child.c with a file in /dev/shm as its memory. Ends with the object.</summary>
internal sealed class ChildProcess : IDisposable
{
    private static readonly Lazy<string> s_program = new(Compile);

    private readonly Process _shell;
    private readonly PidFd _process;
    private readonly string _path;

    public ChildProcess(string mode, long pages = 1024)
    {
        Pages = pages;
        _path = $"/dev/shm/fctrans-child-{Guid.NewGuid():N}";
        System.IO.File.WriteAllBytes(_path, []);
        File = SparseFile.Open(_path, write: true);
        SparseFile.SetLength(File, pages << PageIndex.PageShift);

        // The shell ends at once, so the child is no child of ours: what is injected into must not be (TracedThread).
        _shell = Process.Start(new ProcessStartInfo(
            "sh",
            ["-c", "exec 3<&0; \"$@\" <&3 3<&- &", "sh", s_program.Value, _path, ((long)Bytes).ToString(CultureInfo.InvariantCulture), mode])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        })!;
        string[] greeting = (_shell.StandardOutput.ReadLine() ?? throw new InvalidOperationException("The child ended at once.")).Split(' ');
        Pid = int.Parse(greeting[0], CultureInfo.InvariantCulture);
        Base = new HostAddress(ulong.Parse(greeting[1].AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture));
        _shell.WaitForExit(10_000);
        _process = PidFd.Open(Pid);
    }

    public int Pid { get; }

    public HostAddress Base { get; }

    public long Pages { get; }

    public ulong Bytes => (ulong)Pages << PageIndex.PageShift;

    public SafeFileHandle File { get; }

    public HostAddress AddressOf(long page) => Base + ((ulong)page << PageIndex.PageShift);

    public void Send(string command)
    {
        _shell.StandardInput.WriteLine(command);
        _shell.StandardInput.Flush();
    }

    /// <summary>The next answer; fails the test after 20 s without one.</summary>
    public string Receive()
    {
        var line = _shell.StandardOutput.ReadLineAsync();
        Assert.True(line.Wait(TimeSpan.FromSeconds(20)), "The child does not answer.");
        return line.Result ?? throw new InvalidOperationException("The child has ended.");
    }

    public string Ask(string command)
    {
        Send(command);
        return Receive();
    }

    /// <summary>One figure of the answer to "state".</summary>
    public long State(string name)
    {
        foreach (string pair in Ask("state").Split(' '))
        {
            if (pair.StartsWith(name + "=", StringComparison.Ordinal))
            {
                return long.Parse(pair.AsSpan(name.Length + 1), CultureInfo.InvariantCulture);
            }
        }

        throw new ArgumentException(name);
    }

    /// <summary>Waits until a figure has grown by <paramref name="by"/>: the child really does something meanwhile.</summary>
    public void WaitForProgress(string name, long by)
    {
        long goal = State(name) + by;
        var clock = Stopwatch.StartNew();
        while (State(name) < goal)
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(30), $"{name} does not grow.");
            Thread.Yield();
        }
    }

    public void Dispose()
    {
        _process.SendSignal(Ptrace.SigKill);
        _process.WaitExit(TimeSpan.FromSeconds(20));
        _process.Dispose();
        _shell.Dispose();
        File.Dispose();
        System.IO.File.Delete(_path);
    }

    private static string Compile()
    {
        string program = Path.Combine(AppContext.BaseDirectory, "child");
        string source = Path.Combine(AppContext.BaseDirectory, "child.c");
        using var compiler = Process.Start("gcc", ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", program, source]);
        compiler.WaitForExit();
        Assert.Equal(0, compiler.ExitCode);
        return program;
    }
}
