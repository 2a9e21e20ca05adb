using System.Globalization;
using System.Runtime.InteropServices;
using FCtrans.Agent.Memory;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Interop;

/// <summary>What <c>/proc/self/fdinfo</c> tells of a userfaultfd.</summary>
/// <param name="Initialised">Whether <c>UFFDIO_API</c> was done on it.</param>
/// <param name="Features">What it was opened for.</param>
/// <param name="PendingFaults">Faults that nobody has read yet.</param>
/// <param name="WaitingFaults">Faults that wait in all, read or not.</param>
internal readonly record struct UffdState(bool Initialised, UffdFeatures Features, int PendingFaults, int WaitingFaults);

/// <summary>
/// A userfaultfd: acts on the memory of the process that opened it, whichever process holds the descriptor.
/// <para>
/// Owns its descriptor. All requests are safe from any thread at once, but whoever disposes must have stopped the threads
/// that use it: hot-path calls take no reference. When the last descriptor closes (this one and QEMU's copy), the kernel
/// unregisters everything, and faults get zero pages silently: so QEMU keeps its copy while pages are remote.
/// </para>
/// <para>
/// The hot-path requests do not allocate or throw; they return an errno, 0 when all is done. <see cref="Errno.EAGAIN"/>: the
/// address space is changing, or only a part is done; try again from there. <see cref="Errno.EEXIST"/>: the page is there
/// already, and its waiters were <em>not</em> woken. <see cref="Errno.ENOENT"/>: the range is not registered.
/// <see cref="Errno.ESRCH"/>: the process has ended.
/// </para>
/// Source: Documentation/admin-guide/mm/userfaultfd.rst, ioctl_userfaultfd(2).
/// </summary>
internal sealed unsafe class Userfaultfd : IDisposable
{
    /// <summary><c>UFFD_FEATURE_INITIALIZED</c> of fs/userfaultfd.c, in the features that fdinfo shows.</summary>
    private const ulong InitialisedBit = 1UL << 31;

    private const int OpenFlags = OpenFlag.CloseOnExec | OpenFlag.NonBlock;

    private readonly SafeFileHandle _handle;
    private readonly int _fd;

    /// <param name="handle">Owned from here on.</param>
    public Userfaultfd(SafeFileHandle handle)
    {
        _handle = handle;
        _fd = (int)handle.DangerousGetHandle();
    }

    public SafeFileHandle Handle => _handle;

    /// <summary>Opens one for this very process: for tests and for <see cref="Probe"/>.</summary>
    /// <exception cref="KernelException">EPERM: not root and <c>vm.unprivileged_userfaultfd</c> is 0. ENOSYS: none in this kernel.</exception>
    public static Userfaultfd Open(int flags = 0)
    {
        nint fd = Libc.Syscall(SystemCall.Userfaultfd, OpenFlags | flags, 0, 0, 0, 0, 0);
        if (fd < 0)
        {
            throw KernelException.Of(Marshal.GetLastPInvokeError(), "open a userfaultfd");
        }

        return new Userfaultfd(new SafeFileHandle(fd, ownsHandle: true));
    }

    /// <summary>All features that this kernel has.</summary>
    /// <exception cref="KernelException">No userfaultfd here, or not for this user.</exception>
    public static UffdFeatures Probe()
    {
        using var probe = Open();
        return probe.Api(UffdFeatures.None);
    }

    /// <summary>The handshake, once for each userfaultfd: fixes what it is for. Returns all features of the kernel.</summary>
    /// <exception cref="KernelException">A wanted feature is missing (named in the message), or the handshake was done before.</exception>
    public UffdFeatures Api(UffdFeatures wanted)
    {
        var api = new UffdioApi { Api = UffdRequest.ApiVersion, Features = (ulong)wanted };
        if (Libc.Ioctl(_fd, UffdRequest.Api, &api) == 0)
        {
            return (UffdFeatures)api.Features;
        }

        int errno = Marshal.GetLastPInvokeError();
        var missing = errno == Errno.EINVAL && wanted != UffdFeatures.None ? wanted & ~Probe() : UffdFeatures.None;
        if (missing != UffdFeatures.None)
        {
            throw new KernelException(
                $"use userfaultfd's {missing.Describe()}", errno, "Run a newer kernel: Linux 6.7 or later has all that FCtrans uses.");
        }

        throw new KernelException("agree with the kernel on the userfaultfd interface", errno);
    }

    /// <summary>How it stands, as the kernel shows it: for one that was adopted after a restart.</summary>
    /// <exception cref="IOException">/proc/self/fdinfo can't be read or is not of a userfaultfd.</exception>
    public UffdState ReadState()
    {
        int pending = 0, waiting = 0;
        ulong features = 0;
        bool found = false;
        foreach (string line in File.ReadLines($"/proc/self/fdinfo/{_fd}"))
        {
            if (line.StartsWith("pending:", StringComparison.Ordinal))
            {
                _ = int.TryParse(line.AsSpan(8).Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out pending);
            }
            else if (line.StartsWith("total:", StringComparison.Ordinal))
            {
                _ = int.TryParse(line.AsSpan(6).Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out waiting);
            }
            else if (line.StartsWith("API:", StringComparison.Ordinal))
            {
                string[] parts = line[4..].Trim().Split(':');
                found = parts.Length >= 2
                    && ulong.TryParse(parts[1], NumberStyles.HexNumber, CultureInfo.InvariantCulture, out features);
            }
        }

        if (!found)
        {
            throw new IOException($"/proc/self/fdinfo/{_fd} does not describe a userfaultfd.");
        }

        return new UffdState((features & InitialisedBit) != 0, (UffdFeatures)(features & ~InitialisedBit), pending, waiting);
    }

    /// <summary>From now on faults in the range come here. Returns what can be done with it.</summary>
    /// <param name="start">At a page.</param>
    /// <param name="bytes">Whole pages; the range lies in mappings of the process without a gap.</param>
    /// <exception cref="KernelException">EBUSY: another userfaultfd has the range. EINVAL: not aligned, or not mapped.</exception>
    public UffdIoctls Register(HostAddress start, ulong bytes, UffdRegisterMode mode)
    {
        var register = new UffdioRegister
        {
            Range = new UffdioRange { Start = start.Value, Length = bytes },
            Mode = (ulong)mode,
        };
        if (Libc.Ioctl(_fd, UffdRequest.Register, &register) != 0)
        {
            throw KernelException.Of(Marshal.GetLastPInvokeError(), $"register {bytes} bytes at {start} with userfaultfd");
        }

        return (UffdIoctls)register.Ioctls;
    }

    /// <summary>Gives the range back: its write protection is lifted, all who wait in it go on.</summary>
    /// <exception cref="KernelException">The range is not mapped (any more).</exception>
    public void Unregister(HostAddress start, ulong bytes)
    {
        var range = new UffdioRange { Start = start.Value, Length = bytes };
        if (Libc.Ioctl(_fd, UffdRequest.Unregister, &range) != 0)
        {
            throw KernelException.Of(Marshal.GetLastPInvokeError(), $"unregister {bytes} bytes at {start} from userfaultfd");
        }
    }

    /// <summary>Fills missing pages and wakes who waits for them. <paramref name="copied"/>: bytes done, also after an error.</summary>
    public int Copy(HostAddress destination, void* source, ulong bytes, UffdCopyMode mode, out long copied)
    {
        var copy = new UffdioCopy
        {
            Destination = destination.Value,
            Source = (ulong)source,
            Length = bytes,
            Mode = (ulong)mode,
        };
        int errno = Request(UffdRequest.Copy, &copy);
        copied = Math.Max(0, copy.Copied);
        return errno;
    }

    /// <summary>Fills missing pages with zeros and wakes who waits for them.</summary>
    public int ZeroPage(HostAddress destination, ulong bytes, UffdZeroMode mode, out long zeroed)
        => RangeRequest(UffdRequest.ZeroPage, destination, bytes, (ulong)mode, out zeroed);

    /// <summary>Maps pages that are in the file but not yet in the page table (minor faults).</summary>
    public int Continue(HostAddress start, ulong bytes, UffdContinueMode mode, out long done)
        => RangeRequest(UffdRequest.Continue, start, bytes, (ulong)mode, out done);

    /// <summary>From now on whoever touches these missing pages gets SIGBUS; a guest sees a memory error. Linux 6.6.</summary>
    public int Poison(HostAddress start, ulong bytes, UffdPoisonMode mode, out long done)
        => RangeRequest(UffdRequest.Poison, start, bytes, (ulong)mode, out done);

    /// <summary>Sets or lifts write protection. <paramref name="wake"/> counts only when it is lifted.</summary>
    public int WriteProtect(HostAddress start, ulong bytes, bool protect, bool wake)
    {
        var request = new UffdioWriteProtect
        {
            Range = new UffdioRange { Start = start.Value, Length = bytes },
            // The kernel refuses WP with DONTWAKE: setting the protection never wakes anybody.
            Mode = protect ? UffdRequest.WriteProtectModeWp : wake ? 0 : UffdRequest.WriteProtectModeDontWake,
        };
        return Request(UffdRequest.WriteProtect, &request);
    }

    /// <summary>Lets those who wait in the range try their access again.</summary>
    public int Wake(HostAddress start, ulong bytes)
    {
        var range = new UffdioRange { Start = start.Value, Length = bytes };
        return Request(UffdRequest.Wake, &range);
    }

    /// <summary>Takes what faults there are: their count, 0 when there are none now, -errno on an error.</summary>
    public int ReadEvents(Span<UffdMessage> messages)
    {
        fixed (UffdMessage* buffer = messages)
        {
            while (true)
            {
                nint bytes = Libc.Read(_fd, buffer, (nuint)(messages.Length * sizeof(UffdMessage)));
                if (bytes >= 0)
                {
                    return (int)(bytes / sizeof(UffdMessage));
                }

                int errno = Marshal.GetLastPInvokeError();
                if (errno == Errno.EAGAIN)
                {
                    return 0;
                }

                if (errno != Errno.EINTR)
                {
                    return -errno;
                }
            }
        }
    }

    /// <summary>For <c>poll</c>: readable while there are faults.</summary>
    public int Descriptor => _fd;

    /// <summary><c>poll(2)</c>: how many are ready; when a signal ends it early, nothing has been returned for any.</summary>
    /// <param name="timeoutMilliseconds">-1: for ever.</param>
    public static int Wait(Span<PollDescriptor> descriptors, int timeoutMilliseconds = -1)
    {
        fixed (PollDescriptor* first = descriptors)
        {
            int ready = Libc.Poll(first, (nuint)descriptors.Length, timeoutMilliseconds);
            if (ready < 0)
            {
                foreach (ref var descriptor in descriptors)
                {
                    descriptor.ReturnedEvents = 0;
                }
            }

            return Math.Max(0, ready);
        }
    }

    /// <summary>
    /// Waits until there are faults to read (true), or the time is over or <paramref name="wakeup"/> was signalled (false).
    /// </summary>
    /// <param name="timeoutMilliseconds">-1: for ever.</param>
    /// <param name="wakeup">Left signalled: the caller drains it.</param>
    public bool WaitReadable(int timeoutMilliseconds, EventFd? wakeup = null)
    {
        PollDescriptor* descriptors = stackalloc PollDescriptor[2];
        descriptors[0] = new PollDescriptor { Fd = _fd, Events = PollDescriptor.In };
        descriptors[1] = new PollDescriptor { Fd = wakeup?.Descriptor ?? -1, Events = PollDescriptor.In };

        // A signal (EINTR) ends the wait early as a time-out would; callers loop anyway.
        int ready = Libc.Poll(descriptors, 2, timeoutMilliseconds);
        return ready > 0 && (descriptors[0].ReturnedEvents & PollDescriptor.In) != 0;
    }

    public void Dispose() => _handle.Dispose();

    private int RangeRequest(uint request, HostAddress start, ulong bytes, ulong mode, out long done)
    {
        var argument = new UffdioRangeRequest
        {
            Range = new UffdioRange { Start = start.Value, Length = bytes },
            Mode = mode,
        };
        int errno = Request(request, &argument);
        done = Math.Max(0, argument.Done);
        return errno;
    }

    private int Request(uint request, void* argument)
        => Libc.Ioctl(_fd, request, argument) == 0 ? Errno.None : Marshal.GetLastPInvokeError();
}
