using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Interop;

/// <summary>
/// A process that can't be mistaken for another one that has got its number later (<c>pidfd_open(2)</c>, Linux 5.3). Owns the
/// descriptor. Safe from any thread.
/// </summary>
internal sealed unsafe class PidFd : IDisposable
{
    private readonly SafeFileHandle _handle;
    private readonly int _fd;

    private PidFd(int processId, int fd)
    {
        ProcessId = processId;
        _fd = fd;
        _handle = new SafeFileHandle(fd, ownsHandle: true);
    }

    public int ProcessId { get; }

    /// <summary>For <c>poll</c>: readable when the process has ended.</summary>
    public int Descriptor => _fd;

    /// <exception cref="KernelException">ESRCH: no such process.</exception>
    public static PidFd Open(int processId)
    {
        nint fd = Libc.Syscall(SystemCall.PidfdOpen, processId, 0, 0, 0, 0, 0);
        return fd >= 0
            ? new PidFd(processId, (int)fd)
            : throw KernelException.Of(Marshal.GetLastPInvokeError(), $"open process {processId}");
    }

    /// <summary>A descriptor of ours for the same open file as <paramref name="descriptor"/> of the process (<c>pidfd_getfd(2)</c>, Linux 5.6).</summary>
    /// <exception cref="KernelException">EBADF: the process has no such descriptor. EPERM: not allowed to trace it.</exception>
    public SafeFileHandle GetFd(int descriptor)
    {
        nint fd = Libc.Syscall(SystemCall.PidfdGetfd, _fd, descriptor, 0, 0, 0, 0);
        return fd >= 0
            ? new SafeFileHandle(fd, ownsHandle: true)
            : throw KernelException.Of(Marshal.GetLastPInvokeError(), $"take descriptor {descriptor} of process {ProcessId}");
    }

    /// <summary>Sends a signal; false when the process has ended. Signal 0 only asks.</summary>
    /// <exception cref="KernelException">EPERM.</exception>
    public bool SendSignal(int signal)
    {
        if (Libc.Syscall(SystemCall.PidfdSendSignal, _fd, signal, 0, 0, 0, 0) == 0)
        {
            return true;
        }

        int errno = Marshal.GetLastPInvokeError();
        return errno == Errno.ESRCH
            ? false
            : throw new KernelException($"send signal {signal} to process {ProcessId}", errno);
    }

    public bool HasExited => WaitExit(TimeSpan.Zero);

    /// <summary>Waits until the process has ended (true) or the time is over (false). It need not be a child.</summary>
    public bool WaitExit(TimeSpan timeout)
    {
        long deadline = Environment.TickCount64 + (long)Math.Min(timeout.TotalMilliseconds, int.MaxValue);
        while (true)
        {
            var descriptor = new PollDescriptor { Fd = _fd, Events = PollDescriptor.In };
            int left = (int)Math.Clamp(deadline - Environment.TickCount64, 0, int.MaxValue);
            int ready = Libc.Poll(&descriptor, 1, left);
            if (ready > 0)
            {
                return true;
            }

            if (ready == 0 || Environment.TickCount64 >= deadline)
            {
                return false;
            }
        }
    }

    /// <summary>Waits until the process has ended (true), or <paramref name="attention"/> is signalled or the time is over (false).</summary>
    /// <param name="attention">Its signal is not taken.</param>
    /// <param name="timeout">May be infinite.</param>
    public bool WaitExit(EventFd attention, TimeSpan timeout)
    {
        var descriptors = stackalloc PollDescriptor[2];
        descriptors[0] = new() { Fd = _fd, Events = PollDescriptor.In };
        descriptors[1] = new() { Fd = attention.Descriptor, Events = PollDescriptor.In };
        // A signal that interrupts it looks like the end of the time, and the caller waits again.
        _ = Libc.Poll(descriptors, 2, (int)timeout.TotalMilliseconds);
        return HasExited;
    }

    /// <summary>As <see cref="WaitExit(TimeSpan)"/>, for a time much shorter than a millisecond: under a second.</summary>
    public bool WaitExitBriefly(int microseconds)
    {
        var descriptor = new PollDescriptor { Fd = _fd, Events = PollDescriptor.In };
        var timeout = new TimeSpecification { Nanoseconds = microseconds * 1000L };
        return Libc.PPoll(&descriptor, 1, &timeout, null) > 0;
    }

    public void Dispose() => _handle.Dispose();
}
