using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Interop;

/// <summary>Wakes a thread that waits in <c>poll</c>. Owns its descriptor; signal and drain from any thread.</summary>
internal sealed unsafe class EventFd : IDisposable
{
    private readonly SafeFileHandle _handle;

    /// <exception cref="KernelException">No descriptor left.</exception>
    public EventFd()
    {
        int fd = Libc.EventFd(0, OpenFlag.CloseOnExec | OpenFlag.NonBlock);
        if (fd < 0)
        {
            throw KernelException.Of(Marshal.GetLastPInvokeError(), "make an eventfd");
        }

        _handle = new SafeFileHandle(fd, ownsHandle: true);
        Descriptor = fd;
    }

    /// <summary>For <c>poll</c>; readable while signalled.</summary>
    public int Descriptor { get; }

    public void Signal()
    {
        ulong one = 1;
        _ = Libc.Write(Descriptor, &one, sizeof(ulong));
    }

    /// <summary>Takes the signal back; true if there was one.</summary>
    public bool Drain()
    {
        ulong count;
        return Libc.Read(Descriptor, &count, sizeof(ulong)) == sizeof(ulong);
    }

    /// <summary>Waits for a signal without taking it.</summary>
    /// <param name="timeoutMilliseconds">-1: for ever.</param>
    public bool Wait(int timeoutMilliseconds)
    {
        var descriptor = new PollDescriptor { Fd = Descriptor, Events = PollDescriptor.In };
        return Libc.Poll(&descriptor, 1, timeoutMilliseconds) > 0;
    }

    public void Dispose() => _handle.Dispose();
}
