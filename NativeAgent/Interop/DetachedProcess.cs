using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;

namespace FCtrans.Agent.Interop;

/// <summary>
/// Starts programs that outlive this process: in a session of their own, init their parent, their output in a file. So the
/// end, or the crash, of the worker that started a QEMU does not touch the VM; and .NET's reaper of children has nothing to do
/// with a process that is traced (see <c>TracedThread</c>).
/// </summary>
internal static class DetachedProcess
{
    /// <summary>"$0" is the log. The shell ends after it has told the process id; what it started keeps running.</summary>
    private const string Script = "setsid \"$@\" >>\"$0\" 2>&1 </dev/null & echo $!";

    /// <summary>Starts a program. That it runs says nothing about whether it goes on to: look at its log when it ends.</summary>
    /// <param name="arguments">The program first: a path, or a name looked up in PATH.</param>
    /// <param name="logPath">Gets what the program prints, after what is there.</param>
    /// <param name="environment">Added to this process's own.</param>
    /// <returns>Its process id.</returns>
    /// <exception cref="IOException">It could not be started.</exception>
    public static int Start(
        IReadOnlyList<string> arguments,
        string logPath,
        string? workingDirectory = null,
        IReadOnlyDictionary<string, string>? environment = null)
    {
        var start = new ProcessStartInfo("/bin/sh", ["-c", Script, logPath, .. arguments])
        {
            RedirectStandardOutput = true,
            WorkingDirectory = workingDirectory ?? "",
        };
        SystemRoots.ShowTo(start);
        foreach (var (name, value) in environment ?? new Dictionary<string, string>())
        {
            start.Environment[name] = value;
        }

        try
        {
            using var shell = Process.Start(start)!;
            string? answer = shell.StandardOutput.ReadLine();
            shell.WaitForExit();
            return int.TryParse(answer, NumberStyles.None, CultureInfo.InvariantCulture, out int processId)
                ? processId
                : throw new IOException($"Could not start {arguments[0]}: the shell said '{answer}'.");
        }
        catch (Win32Exception e)
        {
            throw new IOException($"Could not start {arguments[0]}: {e.Message}", e);
        }
    }
}
