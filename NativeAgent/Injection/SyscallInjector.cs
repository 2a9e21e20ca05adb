using System.Runtime.ExceptionServices;

namespace FCtrans.Agent.Injection;

/// <summary>
/// Runs system calls inside another process, which stands still for a fraction of a millisecond meanwhile. How, and what may go
/// wrong: <see cref="TracedThread"/>.
/// </summary>
internal static class SyscallInjector
{
    /// <summary>How long the process may take to stand still.</summary>
    private static readonly TimeSpan s_stopTimeout = TimeSpan.FromSeconds(5);

    /// <summary>Runs one system call, which must not block, in the main thread of <paramref name="processId"/>.</summary>
    /// <returns>What the kernel returned there: a result, or a negative errno.</returns>
    /// <exception cref="InjectionException">It could not be run.</exception>
    public static long Invoke(
        int processId, long number, long a0 = 0, long a1 = 0, long a2 = 0, long a3 = 0, long a4 = 0, long a5 = 0)
        => Run(processId, traced => traced.Invoke(number, a0, a1, a2, a3, a4, a5));

    /// <summary>Stops the main thread of <paramref name="processId"/>, does <paramref name="work"/>, and lets it go.</summary>
    /// <exception cref="InjectionException">It could not be stopped.</exception>
    public static T Run<T>(int processId, Func<TracedThread, T> work)
    {
        T result = default!;
        ExceptionDispatchInfo? failure = null;

        // The kernel ties a tracee to the OS thread that seized it, and lets it go when that thread ends: a thread of its own
        // gives both, and no pool thread is left as the tracer of a process that did not stop.
        var thread = new Thread(() =>
        {
            try
            {
                using var traced = TracedThread.Stop(processId, s_stopTimeout);
                result = work(traced);
            }
            catch (Exception e)
            {
                failure = ExceptionDispatchInfo.Capture(e);
            }
        })
        {
            Name = "inject",
            IsBackground = false,
        };
        thread.Start();
        thread.Join();
        failure?.Throw();
        return result;
    }
}
