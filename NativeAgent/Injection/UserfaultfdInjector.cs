using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;

namespace FCtrans.Agent.Injection;

/// <summary>
/// Userfaultfds of another process's memory. The process keeps its own copy of each descriptor on purpose: while one copy is
/// open, faults wait for whoever serves them; when the last closes, the kernel answers them with zero pages, silently. So a
/// worker that dies does no harm, and the next one adopts the descriptor.
/// </summary>
internal static class UserfaultfdInjector
{
    private const string Device = "/dev/userfaultfd";
    private const string LinkTarget = "anon_inode:[userfaultfd]";

    /// <summary>Opens a userfaultfd in the process and takes a copy of its descriptor. The handshake is the caller's.</summary>
    /// <exception cref="InjectionException">The process may not have one, can't be traced, or has ended.</exception>
    public static Userfaultfd Open(int processId)
    {
        using var process = OpenProcess(processId);
        return SyscallInjector.Run(processId, traced => OpenOne(traced, processId, process).Userfaultfd);
    }

    /// <summary>As <see cref="Open(int)"/>, several while the process stands once, and their handshakes.</summary>
    /// <exception cref="InjectionException">The process may not have them, can't be traced, or has ended. None is left.</exception>
    /// <exception cref="KernelException">The kernel lacks a feature. As before.</exception>
    public static IReadOnlyList<Userfaultfd> Open(int processId, int count, UffdFeatures features)
    {
        using var process = OpenProcess(processId);
        return SyscallInjector.Run(processId, traced =>
        {
            var opened = new List<(Userfaultfd Userfaultfd, long Number)>(count);
            try
            {
                while (opened.Count < count)
                {
                    opened.Add(OpenOne(traced, processId, process));
                    opened[^1].Userfaultfd.Api(features);
                }

                return opened.ConvertAll(one => one.Userfaultfd);
            }
            catch
            {
                foreach (var (userfaultfd, number) in opened)
                {
                    userfaultfd.Dispose();
                    traced.Invoke(SystemCall.Close, number, 0, 0, 0, 0, 0);
                }

                throw;
            }
        });
    }

    /// <summary>
    /// Takes copies of the userfaultfds that the process has open already, but for those whose handshake was not done: a worker that died
    /// between opening and handshake leaves a useless one.
    /// </summary>
    /// <exception cref="InjectionException">The process has ended, or may not be looked into.</exception>
    public static IReadOnlyList<Userfaultfd> Adopt(int processId)
    {
        var adopted = new List<Userfaultfd>();
        using var process = OpenProcess(processId);
        foreach (int descriptor in FindIn(processId))
        {
            Userfaultfd candidate;
            try
            {
                candidate = new Userfaultfd(process.GetFd(descriptor));
            }
            catch (KernelException e) when (e.Errno == Errno.EBADF)
            {
                continue;
            }
            catch (KernelException e)
            {
                adopted.ForEach(a => a.Dispose());
                throw new InjectionException(e.Message, "", e);
            }

            if (candidate.ReadState().Initialised)
            {
                adopted.Add(candidate);
            }
            else
            {
                candidate.Dispose();
            }
        }

        return adopted;
    }

    /// <summary>
    /// Closes the process's own copies of all its userfaultfds. When ours are closed too, all registrations end: <em>missing
    /// pages read as zeros from then on</em>. So only when no page is remote, or before any is.
    /// </summary>
    /// <exception cref="InjectionException">The process has ended, or can't be traced.</exception>
    public static void CloseInTarget(int processId)
    {
        if (FindIn(processId).Count == 0)
        {
            using var process = OpenProcess(processId);
            return;
        }

        SyscallInjector.Run(processId, traced =>
        {
            // Looked up again while it stands, so that no number means another file by now.
            foreach (int descriptor in FindIn(processId))
            {
                traced.Invoke(SystemCall.Close, descriptor, 0, 0, 0, 0, 0);
            }

            return true;
        });
    }

    /// <summary>The numbers of the userfaultfds that the process has open, ascending.</summary>
    public static IReadOnlyList<int> FindIn(int processId)
        => [.. ProcessFiles.Descriptors(processId).Where(d => d.Target == LinkTarget).Select(d => d.Number).Order()];

    private static (Userfaultfd Userfaultfd, long Number) OpenOne(TracedThread traced, int processId, PidFd process)
    {
        long descriptor = traced.Invoke(
            SystemCall.Userfaultfd, OpenFlag.CloseOnExec | OpenFlag.NonBlock, 0, 0, 0, 0, 0);
        if (descriptor == -Errno.EPERM && File.Exists(Device))
        {
            descriptor = OpenByDevice(traced, processId, process);
        }

        if (descriptor < 0)
        {
            throw Refused(processId, (int)-descriptor);
        }

        try
        {
            return (new Userfaultfd(process.GetFd((int)descriptor)), descriptor);
        }
        catch (KernelException e)
        {
            traced.Invoke(SystemCall.Close, descriptor, 0, 0, 0, 0, 0);
            throw new InjectionException(e.Message, "", e);
        }
    }

    /// <summary>
    /// For a process that is not root, as libvirt's are: whoever has /dev/userfaultfd open may make userfaultfds of its own memory
    /// with it. We open it, and lend it for one call.
    /// </summary>
    private static long OpenByDevice(TracedThread traced, int processId, PidFd process)
    {
        try
        {
            using var device = SparseFile.Open(Device, write: true);
            int lent = DescriptorGift.Give(traced, processId, process, device);
            long descriptor = traced.Invoke(
                SystemCall.Ioctl, lent, (long)UffdRequest.NewDescriptor, OpenFlag.CloseOnExec | OpenFlag.NonBlock, 0, 0, 0);
            traced.Invoke(SystemCall.Close, lent, 0, 0, 0, 0, 0);
            return descriptor;
        }
        catch (KernelException e)
        {
            throw new InjectionException(e.Message, "", e);
        }
    }

    private static PidFd OpenProcess(int processId)
    {
        try
        {
            return PidFd.Open(processId);
        }
        catch (KernelException e)
        {
            throw new InjectionException(e.Message, "", e);
        }
    }

    private static InjectionException Refused(int processId, int errno) => new(
        $"Process {processId} may not open a userfaultfd ({Errno.Name(errno)}).",
        errno switch
        {
            Errno.EPERM => "Let it run as root, run Linux 6.1 or later (which has /dev/userfaultfd), or set the sysctl vm.unprivileged_userfaultfd to 1.",
            Errno.ENOSYS => "Run a kernel with CONFIG_USERFAULTFD.",
            _ => Errno.Remedy(errno),
        },
        new KernelException("open a userfaultfd", errno));
}
