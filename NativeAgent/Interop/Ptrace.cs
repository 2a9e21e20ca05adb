using System.Runtime.InteropServices;

namespace FCtrans.Agent.Interop;

/// <summary><c>struct user_regs_struct</c> of x86-64.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct UserRegisters
{
    public ulong R15, R14, R13, R12, Rbp, Rbx, R11, R10, R9, R8, Rax, Rcx, Rdx, Rsi, Rdi;

    /// <summary>The system call in progress; -1 outside of one, which also keeps the kernel from restarting one.</summary>
    public ulong OrigRax;
    public ulong Rip, Cs, EFlags, Rsp, Ss, FsBase, GsBase, Ds, Es, Fs, Gs;
}

/// <summary>
/// <c>ptrace(2)</c> as it is. The kernel ties a tracee to the very thread that seized it: make all calls for one tracee from
/// one OS thread. Each returns an errno, 0 when done.
/// </summary>
internal static unsafe class Ptrace
{
    /// <summary><c>PTRACE_EVENT_STOP</c></summary>
    public const int EventStop = 128;

    public const int SigTrap = 5;
    public const int SigKill = 9;
    public const int SigCont = 18;
    public const int SigStop = 19;

    private const int SingleStepRequest = 9;
    private const int GetRegsRequest = 12;
    private const int SetRegsRequest = 13;
    private const int GetSigInfoRequest = 0x4202;
    private const int ContRequest = 7;
    private const int DetachRequest = 17;
    private const int GetSigMaskRequest = 0x420a;
    private const int SetSigMaskRequest = 0x420b;
    private const int SeizeRequest = 0x4206;
    private const int InterruptRequest = 0x4207;

    public static int Seize(int thread) => Call(SeizeRequest, thread, 0, 0);

    /// <summary>Asks a seized thread to stop; wait for it.</summary>
    public static int Interrupt(int thread) => Call(InterruptRequest, thread, 0, 0);

    public static int GetRegisters(int thread, out UserRegisters registers)
    {
        fixed (UserRegisters* data = &registers)
        {
            *data = default;
            return Call(GetRegsRequest, thread, 0, (nint)data);
        }
    }

    public static int SetRegisters(int thread, in UserRegisters registers)
    {
        fixed (UserRegisters* data = &registers)
        {
            return Call(SetRegsRequest, thread, 0, (nint)data);
        }
    }

    public static int GetSignalMask(int thread, out ulong mask)
    {
        fixed (ulong* data = &mask)
        {
            *data = 0;
            return Call(GetSigMaskRequest, thread, sizeof(ulong), (nint)data);
        }
    }

    public static int SetSignalMask(int thread, ulong mask) => Call(SetSigMaskRequest, thread, sizeof(ulong), (nint)(&mask));

    /// <summary>Lets it run to the end of one instruction, first delivering <paramref name="signal"/> if not 0.</summary>
    public static int SingleStep(int thread, int signal) => Call(SingleStepRequest, thread, 0, signal);

    public static int Continue(int thread, int signal) => Call(ContRequest, thread, 0, signal);

    /// <summary>Lets it go, delivering <paramref name="signal"/> if not 0.</summary>
    public static int Detach(int thread, int signal) => Call(DetachRequest, thread, 0, signal);

    /// <summary>
    /// Why the thread stands: the signal, and the event of <see cref="EventStop"/> kind (0 if none). ESRCH while it runs, or has
    /// ended. So it tells a stop without <c>waitpid</c>, whose answer another part of this process might take away.
    /// </summary>
    public static int GetStop(int thread, out int signal, out int stopEvent)
    {
        // siginfo_t: si_signo at 0, si_code at 8. For an event stop si_code is signal | event << 8 (kernel/signal.c, ptrace_do_notify).
        int* info = stackalloc int[32];
        int errno = Call(GetSigInfoRequest, thread, 0, (nint)info);
        signal = errno == Errno.None ? info[0] : 0;
        stopEvent = errno == Errno.None && info[2] >> 8 == EventStop ? EventStop : 0;
        return errno;
    }

    private static int Call(int request, int thread, nint address, nint data)
        => Libc.Syscall(SystemCall.Ptrace, request, thread, address, data, 0, 0) == 0
            ? Errno.None
            : Marshal.GetLastPInvokeError();
}
