using System.Reflection;
using System.Runtime.InteropServices;
using FCtrans.Agent.Interop;
using Xunit;

namespace FCtrans.Abi.Tests;

/// <summary>Every native size, offset, number and flag of NativeAgent/Interop is what the C headers say.</summary>
public sealed class InteropAbiTests(Headers headers) : IClassFixture<Headers>
{
    [Fact]
    public void Userfaultfd_requests()
    {
        headers.AssertSame("UFFD_API", UffdRequest.ApiVersion);
        headers.AssertSame("UFFD_USER_MODE_ONLY", UffdRequest.UserModeOnly);
        headers.AssertSame("UFFDIO_API", UffdRequest.Api);
        headers.AssertSame("USERFAULTFD_IOC_NEW", UffdRequest.NewDescriptor);
        headers.AssertSame("UFFDIO_REGISTER", UffdRequest.Register);
        headers.AssertSame("UFFDIO_UNREGISTER", UffdRequest.Unregister);
        headers.AssertSame("UFFDIO_WAKE", UffdRequest.Wake);
        headers.AssertSame("UFFDIO_COPY", UffdRequest.Copy);
        headers.AssertSame("UFFDIO_ZEROPAGE", UffdRequest.ZeroPage);
        headers.AssertSame("UFFDIO_WRITEPROTECT", UffdRequest.WriteProtect);
        headers.AssertSame("UFFDIO_CONTINUE", UffdRequest.Continue);
        headers.AssertSame("UFFDIO_POISON", UffdRequest.Poison);
        headers.AssertSame("UFFDIO_WRITEPROTECT_MODE_WP", UffdRequest.WriteProtectModeWp);
        headers.AssertSame("UFFDIO_WRITEPROTECT_MODE_DONTWAKE", UffdRequest.WriteProtectModeDontWake);
    }

    [Fact]
    public void Descriptors_in_messages()
    {
        AssertStruct<MessageHeader>("struct msghdr", new()
        {
            ["Pieces"] = "msg_iov", ["PieceCount"] = "msg_iovlen", ["Control"] = "msg_control", ["ControlBytes"] = "msg_controllen",
            ["Flags"] = "msg_flags",
        });
        AssertStruct<MessagePiece>("struct iovec", new() { ["Bytes"] = "iov_len" });
        headers.AssertSame("SOL_SOCKET", DescriptorControl.SocketLevel);
        headers.AssertSame("SCM_RIGHTS", DescriptorControl.Rights);
        headers.AssertSame("CMSG_LEN", DescriptorControl.UsedBytes);
        headers.AssertSame("CMSG_SPACE", Marshal.SizeOf<DescriptorControl>());
    }

    [Fact]
    public void Userfaultfd_flags()
    {
        AssertEnum<UffdFeatures>("UFFD_FEATURE_", except: ["None", "Tracking", "Paging"]);
        AssertEnum<UffdRegisterMode>("UFFDIO_REGISTER_MODE_");
        AssertEnum<UffdCopyMode>("UFFDIO_COPY_MODE_", except: ["None"]);
        AssertEnum<UffdZeroMode>("UFFDIO_ZEROPAGE_MODE_", except: ["None"]);
        AssertEnum<UffdContinueMode>("UFFDIO_CONTINUE_MODE_", except: ["None"]);
        AssertEnum<UffdPoisonMode>("UFFDIO_POISON_MODE_", except: ["None"]);
        AssertEnum<UffdEvent>("UFFD_EVENT_");
        AssertEnum<UffdFaultFlags>("UFFD_PAGEFAULT_FLAG_", except: ["None"]);
        foreach (var request in Enum.GetValues<UffdIoctls>())
        {
            Assert.Equal(1UL << (int)headers["_UFFDIO_" + CName(request.ToString())], (ulong)request);
        }
    }

    [Fact]
    public void Userfaultfd_structures()
    {
        AssertStruct<UffdMessage>("struct uffd_msg", new()
        {
            ["Event"] = "event", ["Flags"] = "arg.pagefault.flags", ["Address"] = "arg.pagefault.address",
            ["ThreadId"] = "arg.pagefault.feat.ptid",
        });
        AssertStruct<UffdioApi>("struct uffdio_api", new() { ["Features"] = "features", ["Ioctls"] = "ioctls" });
        AssertStruct<UffdioRange>("struct uffdio_range", new() { ["Length"] = "len" });
        AssertStruct<UffdioRegister>("struct uffdio_register", new() { ["Mode"] = "mode", ["Ioctls"] = "ioctls" });
        AssertStruct<UffdioCopy>("struct uffdio_copy", new()
        {
            ["Source"] = "src", ["Length"] = "len", ["Mode"] = "mode", ["Copied"] = "copy",
        });
        AssertStruct<UffdioRangeRequest>("struct uffdio_zeropage", new() { ["Mode"] = "mode", ["Done"] = "zeropage" });
        AssertStruct<UffdioRangeRequest>("struct uffdio_continue", new() { ["Mode"] = "mode", ["Done"] = "mapped" });
        AssertStruct<UffdioRangeRequest>("struct uffdio_poison", new() { ["Mode"] = "mode", ["Done"] = "updated" });
        AssertStruct<UffdioWriteProtect>("struct uffdio_writeprotect", new() { ["Mode"] = "mode" });
    }

    [Fact]
    public void Pagemap_scan()
    {
        headers.AssertSame("PAGEMAP_SCAN", PagemapScan.Request);
        AssertEnum<PageCategories>("PAGE_IS_", except: ["None", "WpAllowed", "PfnZero"]);
        headers.AssertSame("PAGE_IS_WPALLOWED", (ulong)PageCategories.WpAllowed);
        headers.AssertSame("PAGE_IS_PFNZERO", (ulong)PageCategories.PfnZero);
        headers.AssertSame("PM_SCAN_WP_MATCHING", (ulong)PagemapFlags.WpMatching);
        headers.AssertSame("PM_SCAN_CHECK_WPASYNC", (ulong)PagemapFlags.CheckWpAsync);
        AssertStruct<PageRegion>("struct page_region", new() { ["End"] = "end", ["Categories"] = "categories" });
        AssertStruct<PagemapScanArgument>("struct pm_scan_arg", new()
        {
            ["Flags"] = "flags", ["Start"] = "start", ["End"] = "end", ["WalkEnd"] = "walk_end", ["Vector"] = "vec",
            ["VectorLength"] = "vec_len", ["MaxPages"] = "max_pages", ["CategoryInverted"] = "category_inverted",
            ["CategoryMask"] = "category_mask", ["CategoryAnyOfMask"] = "category_anyof_mask", ["ReturnMask"] = "return_mask",
        });
    }

    [Fact]
    public void Ptrace_requests_and_registers()
    {
        var registers = typeof(UserRegisters).GetFields(BindingFlags.Instance | BindingFlags.Public);
        AssertStruct<UserRegisters>("struct user_regs_struct", registers.ToDictionary(
            r => r.Name, r => r.Name is "OrigRax" or "FsBase" or "GsBase" ? CName(r.Name).ToLowerInvariant() : r.Name.ToLowerInvariant()));
        Assert.Equal(27, registers.Length);
        foreach (var (constant, name) in new Dictionary<string, string>
        {
            ["SingleStepRequest"] = "PTRACE_SINGLESTEP", ["GetRegsRequest"] = "PTRACE_GETREGS", ["SetRegsRequest"] = "PTRACE_SETREGS",
            ["ContRequest"] = "PTRACE_CONT", ["DetachRequest"] = "PTRACE_DETACH", ["GetSigMaskRequest"] = "PTRACE_GETSIGMASK",
            ["SetSigMaskRequest"] = "PTRACE_SETSIGMASK", ["SeizeRequest"] = "PTRACE_SEIZE", ["InterruptRequest"] = "PTRACE_INTERRUPT",
            ["GetSigInfoRequest"] = "PTRACE_GETSIGINFO", ["EventStop"] = "PTRACE_EVENT_STOP", ["SigTrap"] = "SIGTRAP",
            ["SigStop"] = "SIGSTOP", ["SigCont"] = "SIGCONT", ["SigKill"] = "SIGKILL",
        })
        {
            headers.AssertSame(name, Constant(typeof(Ptrace), constant));
        }

        // What Ptrace.GetStop counts on.
        Assert.Equal((0ul, 8ul, 128ul), (headers["offsetof(siginfo_t, si_signo)"], headers["offsetof(siginfo_t, si_code)"], headers["sizeof(siginfo_t)"]));
    }

    [Fact]
    public void System_calls()
    {
        headers.AssertSame("SYS_close", SystemCall.Close);
        headers.AssertSame("SYS_getpid", SystemCall.GetPid);
        headers.AssertSame("SYS_mmap", SystemCall.Mmap);
        headers.AssertSame("SYS_munmap", SystemCall.Munmap);
        headers.AssertSame("SYS_ioctl", SystemCall.Ioctl);
        headers.AssertSame("SYS_recvmsg", SystemCall.RecvMsg);
        headers.AssertSame("SYS_socketpair", SystemCall.SocketPair);
        headers.AssertSame("SYS_ptrace", SystemCall.Ptrace);
        headers.AssertSame("SYS_userfaultfd", SystemCall.Userfaultfd);
        headers.AssertSame("SYS_pidfd_send_signal", SystemCall.PidfdSendSignal);
        headers.AssertSame("SYS_pidfd_open", SystemCall.PidfdOpen);
        headers.AssertSame("SYS_pidfd_getfd", SystemCall.PidfdGetfd);
    }

    [Fact]
    public void Files_and_memory()
    {
        AssertStruct<FileStatus>("struct stat", new()
        {
            ["Device"] = "st_dev", ["Inode"] = "st_ino", ["Mode"] = "st_mode", ["OwnerId"] = "st_uid", ["Bytes"] = "st_size",
            ["BlockBytes"] = "st_blksize", ["Blocks512"] = "st_blocks",
        });
        AssertStruct<FileSystemStatus>("struct statfs", new() { ["Kind"] = "f_type", ["BlockBytes"] = "f_bsize", ["FreeBlocks"] = "f_bavail" });
        AssertStruct<PollDescriptor>("struct pollfd", new() { ["Fd"] = "fd", ["Events"] = "events", ["ReturnedEvents"] = "revents" });
        AssertStruct<TimeSpecification>("struct timespec", new() { ["Nanoseconds"] = "tv_nsec" });
        headers.AssertSame("POLLIN", PollDescriptor.In);
        headers.AssertSame("POLLOUT", PollDescriptor.Out);
        headers.AssertSame("FIONBIO", Libc.FileNonBlocking);
        headers.AssertSame("POLLERR", PollDescriptor.Error);
        headers.AssertSame("POLLHUP", PollDescriptor.HangUp);
        headers.AssertSame("POLLRDHUP", PollDescriptor.ReadHangUp);
        headers.AssertSame("MSG_DONTWAIT", MessageFlag.DontWait);
        headers.AssertSame("MSG_NOSIGNAL", MessageFlag.NoSignal);
        headers.AssertSame("O_RDONLY", OpenFlag.ReadOnly);
        headers.AssertSame("O_RDWR", OpenFlag.ReadWrite);
        headers.AssertSame("O_NONBLOCK", OpenFlag.NonBlock);
        headers.AssertSame("O_CLOEXEC", OpenFlag.CloseOnExec);
        headers.AssertSame("O_PATH", OpenFlag.PathOnly);
        headers.AssertSame("EFD_NONBLOCK", OpenFlag.NonBlock);
        headers.AssertSame("EFD_CLOEXEC", OpenFlag.CloseOnExec);
        headers.AssertSame("SEEK_DATA", Constant(typeof(SparseFile), "SeekData"));
        headers.AssertSame("SEEK_HOLE", Constant(typeof(SparseFile), "SeekHole"));
        headers.AssertSame("FALLOC_FL_KEEP_SIZE", Constant(typeof(SparseFile), "KeepSize"));
        headers.AssertSame("FALLOC_FL_PUNCH_HOLE", Constant(typeof(SparseFile), "PunchHoleMode"));
        foreach (var (constant, name) in new Dictionary<string, string>
        {
            ["ProtRead"] = "PROT_READ", ["ProtWrite"] = "PROT_WRITE", ["MapShared"] = "MAP_SHARED", ["MapPrivate"] = "MAP_PRIVATE",
            ["MapAnonymous"] = "MAP_ANONYMOUS", ["MapNoReserve"] = "MAP_NORESERVE", ["MapPopulate"] = "MAP_POPULATE",
        })
        {
            headers.AssertSame(name, Constant(typeof(MappedMemory), constant));
        }

        foreach (var advice in Enum.GetValues<MemoryAdvice>())
        {
            headers.AssertSame("MADV_" + advice.ToString().ToUpperInvariant(), (long)advice);
        }

        headers.AssertSame("TMPFS_MAGIC", FileSystems.Tmpfs);
        headers.AssertSame("HUGETLBFS_MAGIC", FileSystems.HugeTlbFs);
    }

    [Fact]
    public void Error_numbers()
    {
        var numbers = typeof(Errno).GetFields(BindingFlags.Static | BindingFlags.Public).Where(f => f.Name != "None").ToList();
        Assert.NotEmpty(numbers);
        foreach (var number in numbers)
        {
            int value = (int)number.GetRawConstantValue()!;
            headers.AssertSame(number.Name, value);
            Assert.Equal(number.Name, Errno.Name(value));
        }
    }

    private void AssertEnum<T>(string prefix, string[]? except = null)
        where T : struct, Enum
    {
        foreach (var value in Enum.GetValues<T>())
        {
            string name = value.ToString();
            if (except is null || !except.Contains(name))
            {
                // DontWake is DONTWAKE, PageFault is PAGEFAULT: the C names have few underscores of their own.
                string cName = prefix + CName(name);
                string joined = prefix + name.ToUpperInvariant();
                headers.AssertSame(Has(cName) ? cName : joined, Convert.ToUInt64(value, System.Globalization.CultureInfo.InvariantCulture));
            }
        }
    }

    private void AssertStruct<T>(string cType, Dictionary<string, string> fields)
        where T : unmanaged
    {
        headers.AssertSame($"sizeof({cType})", Marshal.SizeOf<T>());
        unsafe
        {
            headers.AssertSame($"sizeof({cType})", sizeof(T));
        }

        foreach (var (field, cField) in fields)
        {
            headers.AssertSame($"offsetof({cType}, {cField})", (long)Marshal.OffsetOf<T>(field));
        }
    }

    private bool Has(string name)
    {
        try
        {
            return headers[name] >= 0;
        }
        catch (KeyNotFoundException)
        {
            return false;
        }
    }

    private static long Constant(Type type, string name)
        => Convert.ToInt64(
            type.GetField(name, BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic)!.GetRawConstantValue(),
            System.Globalization.CultureInfo.InvariantCulture);

    /// <summary>WpHugetlbfsShmem → WP_HUGETLBFS_SHMEM.</summary>
    private static string CName(string name)
    {
        // One word in C where C# has two.
        string joined = name.Replace("ZeroPage", "Zeropage", StringComparison.Ordinal).Replace("WriteProtect", "Writeprotect", StringComparison.Ordinal);
        return string.Concat(joined.Select((c, i) => i > 0 && char.IsUpper(c) ? "_" + c : char.ToUpperInvariant(c).ToString()));
    }
}
