using System.Diagnostics;
using System.Text;

namespace FCtrans.Lab;

/// <summary>How a command ended and what it wrote.</summary>
public sealed record LabCommandResult(int ExitCode, string Output, string Error);

/// <summary>Runs programs of the machine, synchronously and within a bound of time.</summary>
internal static class LabCommand
{
    public static readonly TimeSpan DefaultTimeout = TimeSpan.FromSeconds(60);

    /// <summary>Runs a program and returns how it ended; kills it and throws when it takes too long.</summary>
    public static LabCommandResult Run(string program, IEnumerable<string> arguments, TimeSpan? timeout = null)
    {
        var start = new ProcessStartInfo(program) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string argument in arguments)
        {
            start.ArgumentList.Add(argument);
        }

        using Process process = Process.Start(start) ?? throw new LabException($"{program} did not start.");
        process.StandardInput.Close();
        // Both pipes are drained beside each other, or a program that fills one while we read the other would hang.
        var output = new StringBuilder();
        var error = new StringBuilder();
        using var ends = new CountdownEvent(2);
        process.OutputDataReceived += (_, line) => Take(output, line.Data, ends);
        process.ErrorDataReceived += (_, line) => Take(error, line.Data, ends);
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        TimeSpan limit = timeout ?? DefaultTimeout;
        if (!process.WaitForExit(limit))
        {
            process.Kill(entireProcessTree: true);
            process.WaitForExit();
            throw new LabException($"'{program} {string.Join(' ', start.ArgumentList)}' took longer than {limit.TotalSeconds} s.");
        }

        // A child in the background may hold the pipes open for ever; what the program itself wrote is there by then.
        ends.Wait(TimeSpan.FromSeconds(2));
        lock (output)
        {
            lock (error)
            {
                return new LabCommandResult(process.ExitCode, output.ToString(), error.ToString());
            }
        }
    }

    /// <summary>Runs a program that must succeed and returns its output.</summary>
    public static string Require(string program, params string[] arguments)
    {
        LabCommandResult result = Run(program, arguments);
        return result.ExitCode == 0
            ? result.Output
            : throw new LabException($"'{program} {string.Join(' ', arguments)}' ended with {result.ExitCode}: {result.Error.Trim()}");
    }

    /// <summary>Waits until the condition holds; throws with the given text when it does not within the time.</summary>
    public static void WaitUntil(Func<bool> condition, TimeSpan timeout, Func<string> failure)
    {
        long started = Stopwatch.GetTimestamp();
        while (!condition())
        {
            if (Stopwatch.GetElapsedTime(started) > timeout)
            {
                throw new LabException(failure());
            }

            Thread.Sleep(10);
        }
    }

    private static void Take(StringBuilder into, string? line, CountdownEvent ends)
    {
        if (line is null)
        {
            try
            {
                ends.Signal();
            }
            catch (ObjectDisposedException)
            {
                // The pipe ended after its owner stopped waiting for it.
            }

            return;
        }

        lock (into)
        {
            into.Append(line).Append('\n');
        }
    }
}
