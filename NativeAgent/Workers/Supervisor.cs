using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using FCtrans.Agent.Interop;

namespace FCtrans.Agent.Workers;

/// <summary>
/// The tiny parent of a worker: starts it, and starts it again when it dies, until it exits with 0. Holds nothing itself, so
/// that nothing is lost with it either.
/// </summary>
internal static partial class Supervisor
{
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(2);

    /// <summary>Starts the supervisor of a prepared worker as a process that outlives this one and its SSH session.</summary>
    public static void Launch(WorkerDirectory directory)
    {
        var start = new ProcessStartInfo(Environment.ProcessPath!) { WorkingDirectory = "/" };
        start.ArgumentList.Add("supervise");
        start.ArgumentList.Add(directory.Path);
        using var process = Process.Start(start)
            ?? throw new InvalidOperationException($"The supervisor of {directory.Path} could not be started.");
    }

    /// <summary>The supervisor's own main function.</summary>
    public static int Run(WorkerDirectory directory)
    {
        Detach(directory.LogPath);
        directory.WriteProcessId(Markers.SupervisorPid);
        var pause = TimeSpan.Zero;
        // Of a worker that has come under another agent, the supervisor before this one has counted so far.
        for (int restarts = directory.ReadNumber(Markers.Restarts, otherwise: -1) + 1; ; restarts++)
        {
            directory.Mark(Markers.Restarts, restarts.ToString(CultureInfo.InvariantCulture));
            long began = Stopwatch.GetTimestamp();
            int exitCode = RunOnce(directory);
            if (exitCode == 0 || !directory.Exists)
            {
                return 0;
            }

            WorkerLog.Write($"supervisor: the worker ended with {exitCode}; starting it again");
            if (Stopwatch.GetElapsedTime(began) > TimeSpan.FromSeconds(10))
            {
                pause = TimeSpan.Zero;
            }

            // At once the first time, since a guest may be waiting for a page; slower when it keeps dying.
            Thread.Sleep(pause);
            var longer = (pause * 2) + TimeSpan.FromMilliseconds(50);
            pause = longer < s_longestPause ? longer : s_longestPause;
        }
    }

    private static int RunOnce(WorkerDirectory directory)
    {
        var start = new ProcessStartInfo(Environment.ProcessPath!) { WorkingDirectory = "/" };
        start.ArgumentList.Add("worker");
        start.ArgumentList.Add(directory.Path);
        SystemRoots.HideFrom(start);
        using var worker = Process.Start(start);
        if (worker is null)
        {
            return 1;
        }

        worker.WaitForExit();
        return worker.ExitCode;
    }

    /// <summary>Leaves the session and the pipes of whoever started us: closing the SSH connection must end nothing.</summary>
    private static void Detach(string logPath)
    {
        const int readWrite = 2;
        const int appendCreated = 0x1 | 0x40 | 0x400;
        const int ownerOnly = 0x180;
        _ = SetSid();
        int nothing = Open("/dev/null", readWrite, 0);
        int log = Open(logPath, appendCreated, ownerOnly);
        _ = Dup2(nothing, 0);
        _ = Dup2(log < 0 ? nothing : log, 1);
        _ = Dup2(log < 0 ? nothing : log, 2);
    }

    [LibraryImport("libc", EntryPoint = "setsid")]
    private static partial int SetSid();

    [LibraryImport("libc", EntryPoint = "open", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags, uint mode);

    [LibraryImport("libc", EntryPoint = "dup2")]
    private static partial int Dup2(int from, int to);
}
