using System.Diagnostics;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;

namespace FCtrans.Agent.Injection;

/// <summary>
/// The main thread of another process, stopped, so that system calls can be run in it. All of an object's life happens on one
/// OS thread (the kernel ties the tracee to it); <see cref="SyscallInjector"/> sees to that.
/// <para>Three steps:</para>
/// <list type="number">
/// <item><b>Prepare</b> (<see cref="Stop"/>): seize, interrupt, wait for the stop, read the registers, find a <c>syscall</c>
/// instruction. Nothing of the process is changed yet.</item>
/// <item><b>Act</b> (<see cref="Invoke"/>): block all signals, set the registers to the call, run the one instruction, take its
/// result.</item>
/// <item><b>Cure</b> (at the end of each act, and <see cref="Dispose"/>): the registers and the signal mask as they were; let
/// it go. A system call that the stop had interrupted is started again by the kernel, because the restored registers say so.</item>
/// </list>
/// <para>
/// If this process dies, the kernel lets the tracee run on (it was seized without PTRACE_O_EXITKILL). That is harmless before and
/// after an act. Within one, from the setting of the registers to their restoring, it would run on with those of the
/// injected call: a window of three ptrace calls, some tens of microseconds, kept free of anything else.
/// </para>
/// <para>
/// The process must not be a child of this one. Its stops would look to .NET's reaper of children (which calls <c>waitpid</c>
/// at each SIGCHLD) like its end. A process that is nobody's business but ours has no such trouble, and the stops are told by
/// PTRACE_GETSIGINFO, so nothing depends on who gets to call <c>waitpid</c> first.
/// </para>
/// Source: ptrace(2), and kernel/signal.c and arch/x86/kernel/signal.c for how an interrupted call is restarted.
/// </summary>
internal sealed class TracedThread : IDisposable
{
    /// <summary>All but SIGTRAP, which ends the single step: blocked, the kernel would force it and reset its handler.</summary>
    private const ulong AllSignalsButTrap = ~(1UL << (Ptrace.SigTrap - 1));

    private const ulong UserCode64 = 0x33;
    private const int MaximumForeignStops = 1000;

    private readonly int _thread;
    private readonly PidFd _process;
    private UserRegisters _saved;
    private ulong _savedMask;
    private ulong _instruction;
    private bool _stopped;

    private TracedThread(int thread, PidFd process)
    {
        _thread = thread;
        _process = process;
    }

    /// <summary>Stops the main thread of a process.</summary>
    /// <param name="timeout">For the stop: a thread in an uninterruptible wait stops only when that ends.</param>
    /// <exception cref="InjectionException">Not allowed, already traced, not stopped in time, or not a 64-bit process.</exception>
    public static TracedThread Stop(int processId, TimeSpan timeout)
    {
        if (StatusField(processId, "PPid:") == Environment.ProcessId)
        {
            throw new InjectionException(
                $"Process {processId} is a child of this process.", "Start it with DetachedProcess, so that init is its parent.");
        }

        TracedThread traced;
        try
        {
            traced = new TracedThread(processId, PidFd.Open(processId));
        }
        catch (KernelException e)
        {
            throw new InjectionException(e.Message, "", e);
        }

        try
        {
            traced.Prepare(timeout);
            return traced;
        }
        catch
        {
            traced.Dispose();
            throw;
        }
    }

    /// <summary>Runs one system call and puts everything back. It must be one that does not block.</summary>
    /// <returns>What the kernel returned: a result, or a negative errno.</returns>
    /// <exception cref="InjectionException">The process has ended, or its sandbox caught the call.</exception>
    public long Invoke(long number, long a0, long a1, long a2, long a3, long a4, long a5)
    {
        var call = _saved;
        call.Rip = _instruction;
        call.Rax = (ulong)number;

        // Not in a system call: or else the kernel would restart the interrupted one on our step's way out.
        call.OrigRax = ulong.MaxValue;
        (call.Rdi, call.Rsi, call.Rdx) = ((ulong)a0, (ulong)a1, (ulong)a2);
        (call.R10, call.R8, call.R9) = ((ulong)a3, (ulong)a4, (ulong)a5);
        Check(Ptrace.SetSignalMask(_thread, AllSignalsButTrap), "block its signals");
        int caught = 0;
        UserRegisters after = default;
        int errno = Ptrace.SetRegisters(_thread, call);
        if (errno == Errno.None)
        {
            errno = Step(out caught);
            if (errno == Errno.None)
            {
                errno = Ptrace.GetRegisters(_thread, out after);
            }

            int restored = Ptrace.SetRegisters(_thread, _saved);
            errno = errno == Errno.None ? restored : errno;
        }

        int unblocked = Ptrace.SetSignalMask(_thread, _savedMask);
        Check(errno == Errno.None ? unblocked : errno, "run a system call");
        if (caught != 0 || after.Rip != _instruction + 2)
        {
            throw new InjectionException(
                $"System call {number} was not run in process {_thread}: signal {caught} came instead.",
                "Its sandbox may forbid the call (QEMU: -sandbox).");
        }

        return (long)after.Rax;
    }

    /// <summary>Lets the thread go on from where it was stopped.</summary>
    public void Dispose()
    {
        if (_stopped)
        {
            // In a group stop (SIGSTOP) the kernel keeps it stopped; else it runs. An error means that it has ended.
            _ = Ptrace.Detach(_thread, 0);
            _stopped = false;
        }

        _process.Dispose();
    }

    private void Prepare(TimeSpan timeout)
    {
        int errno = Ptrace.Seize(_thread);
        if (errno != Errno.None)
        {
            
            // The kernel names the thread that traces; users know processes.
            int tracingThread = StatusField(_thread, "TracerPid:");
            int tracer = tracingThread == 0 ? 0 : StatusField(tracingThread, "Tgid:");
            throw new InjectionException(
                $"Could not trace process {_thread} ({Errno.Name(errno)}){(tracer > 0 ? $": process {tracer} does already" : "")}.",
                tracer > 0 ? "End that debugger." : Errno.Remedy(errno),
                new KernelException($"trace process {_thread}", errno));
        }

        Check(Ptrace.Interrupt(_thread), "interrupt it");
        WaitForStop(timeout);
        Check(Ptrace.GetRegisters(_thread, out _saved), "read its registers");
        Check(Ptrace.GetSignalMask(_thread, out _savedMask), "read its signal mask");
        if (_saved.Cs != UserCode64)
        {
            throw new InjectionException($"Process {_thread} is not a 64-bit one.", "Use a 64-bit QEMU.");
        }

        _instruction = FindSyscallInstruction();
    }

    /// <summary>Waits until the thread stands because we asked for it. Signals that were on their way are delivered first.</summary>
    private void WaitForStop(TimeSpan timeout)
    {
        for (int foreign = 0; foreign < MaximumForeignStops; foreign++)
        {
            if (!WaitUntilItStands(timeout, out int signal, out int stopEvent))
            {
                // Not stopped, it can't be detached either: the end of this thread does it.
                throw new InjectionException(
                    $"Process {_thread} did not stop within {timeout.TotalSeconds:F1} s: it waits in the kernel, maybe for a page of its memory.",
                    "See that what serves its memory runs, then try again.");
            }

            _stopped = true;
            if (stopEvent == Ptrace.EventStop)
            {
                return;
            }

            // A signal's delivery came before our interrupt, which is still pending.
            Check(Ptrace.Continue(_thread, signal), "deliver its signal");
            _stopped = false;
        }

        throw new InjectionException($"Process {_thread} gets signal after signal and never stands.", "");
    }

    /// <summary>One instruction; <paramref name="caught"/>: the signal that came instead of its end, 0 if none.</summary>
    private int Step(out int caught)
    {
        caught = 0;
        while (true)
        {
            int errno = Ptrace.SingleStep(_thread, 0);
            if (errno != Errno.None)
            {
                return errno;
            }

            // Without a time limit: the registers are not its own now, so there is no giving up.
            WaitUntilItStands(Timeout.InfiniteTimeSpan, out int signal, out int stopEvent);
            if (stopEvent == Ptrace.EventStop)
            {
                // SIGSTOP, which can't be blocked, came before the step did.
                continue;
            }

            caught = signal == Ptrace.SigTrap ? 0 : signal;
            return Errno.None;
        }
    }

    /// <summary>False when the time is over. The kernel announces a stop by waitpid only, which is not ours to use.</summary>
    private bool WaitUntilItStands(TimeSpan timeout, out int signal, out int stopEvent)
    {
        long began = Stopwatch.GetTimestamp();
        for (int turn = 0; ; turn++)
        {
            int errno = Ptrace.GetStop(_thread, out signal, out stopEvent);
            if (errno == Errno.None)
            {
                return true;
            }

            // It stands within microseconds, or after a long time. To sleep, if briefly, and not to yield: who yields on a busy
            // machine is away for whole time slices, in which the tracee stands still.
            if (_process.WaitExitBriefly(turn < 1000 ? 10 : 1000))
            {
                _stopped = false;
                throw new InjectionException($"Process {_thread} has ended.", "");
            }

            if (timeout != Timeout.InfiniteTimeSpan && Stopwatch.GetElapsedTime(began) > timeout)
            {
                return false;
            }
        }
    }

    /// <summary>
    /// <c>0f 05</c> is a whole instruction wherever these two bytes are executable: before the program counter when the thread
    /// waits in a system call (nearly always), else somewhere in the vDSO or another mapping.
    /// </summary>
    private ulong FindSyscallInstruction()
    {
        using var memory = new FileStream(
            $"/proc/{_thread}/mem", FileMode.Open, FileAccess.Read, FileShare.ReadWrite, bufferSize: 0);
        var here = new byte[2];
        if (_saved.Rip > 2 && TryRead(memory, _saved.Rip - 2, here) == 2 && here is [0x0f, 0x05])
        {
            return _saved.Rip - 2;
        }

        var buffer = new byte[1 << 20];
        foreach (var mapping in ProcessFiles.Mappings(_thread)
            .Where(m => m.Permissions.Length >= 4 && m.Permissions[0] == 'r' && m.Permissions[2] == 'x' && m.Path != "[vsyscall]")
            .OrderBy(m => m.Path == "[vdso]" ? 0 : m.Path.Contains("libc", StringComparison.Ordinal) ? 1 : 2))
        {
            // Overlapping by a byte, so that no pair is cut in two.
            for (ulong at = mapping.Start; at < mapping.End; at += (ulong)buffer.Length - 1)
            {
                int wanted = (int)Math.Min((ulong)buffer.Length, mapping.End - at);
                int found = buffer.AsSpan(0, TryRead(memory, at, buffer.AsSpan(0, wanted))).IndexOf((ReadOnlySpan<byte>)[0x0f, 0x05]);
                if (found >= 0)
                {
                    return at + (ulong)found;
                }
            }
        }

        throw new InjectionException($"Process {_thread} has no system call instruction.", "");
    }

    private static int TryRead(FileStream memory, ulong address, Span<byte> into)
    {
        try
        {
            memory.Position = (long)address;
            return memory.ReadAtLeast(into, into.Length, throwOnEndOfStream: false);
        }
        catch (IOException)
        {
            return 0;
        }
    }

    private static int StatusField(int processId, string name)
    {
        foreach (var line in ProcessFiles.ReadText($"/proc/{processId}/status").AsSpan().EnumerateLines())
        {
            if (line.StartsWith(name, StringComparison.Ordinal))
            {
                return int.TryParse(line[name.Length..].Trim(), out int value) ? value : 0;
            }
        }

        return 0;
    }

    private void Check(int errno, string action)
    {
        if (errno != Errno.None)
        {
            throw new InjectionException(
                $"Could not {action} (process {_thread}, {Errno.Name(errno)}).", Errno.Remedy(errno),
                new KernelException(action, errno));
        }
    }
}
