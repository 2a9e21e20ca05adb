/* Prints what the kernel's and the C library's headers say, one "name value" a line. The tests compare it with the C# side.
 * What Debian 12's headers (Linux 6.1) lack is declared here as the kernel documents it:
 * include/uapi/linux/userfaultfd.h and include/uapi/linux/fs.h of Linux 6.8. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE (1 << 16)
#endif
#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP ((__u64)1 << 1)
#endif
#ifndef UFFDIO_POISON
#define _UFFDIO_MOVE 0x05
#define _UFFDIO_POISON 0x08
struct uffdio_poison {
    struct uffdio_range range;
#define UFFDIO_POISON_MODE_DONTWAKE ((__u64)1 << 0)
    __u64 mode;
    __s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, _UFFDIO_POISON, struct uffdio_poison)
#endif
#ifndef PAGEMAP_SCAN
#define PAGE_IS_WPALLOWED (1 << 0)
#define PAGE_IS_WRITTEN (1 << 1)
#define PAGE_IS_FILE (1 << 2)
#define PAGE_IS_PRESENT (1 << 3)
#define PAGE_IS_SWAPPED (1 << 4)
#define PAGE_IS_PFNZERO (1 << 5)
#define PAGE_IS_HUGE (1 << 6)
#define PAGE_IS_SOFT_DIRTY (1 << 7)
struct page_region {
    __u64 start;
    __u64 end;
    __u64 categories;
};
#define PM_SCAN_WP_MATCHING (1 << 0)
#define PM_SCAN_CHECK_WPASYNC (1 << 1)
struct pm_scan_arg {
    __u64 size;
    __u64 flags;
    __u64 start;
    __u64 end;
    __u64 walk_end;
    __u64 vec;
    __u64 vec_len;
    __u64 max_pages;
    __u64 category_inverted;
    __u64 category_mask;
    __u64 category_anyof_mask;
    __u64 return_mask;
};
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#endif

#define VALUE(x) printf(#x " %llu\n", (unsigned long long)(x))
#define SIZE(t) printf("sizeof(" #t ") %zu\n", sizeof(t))
#define OFFSET(t, f) printf("offsetof(" #t ", " #f ") %zu\n", offsetof(t, f))

int main(void)
{
    VALUE(UFFD_API); VALUE(UFFD_USER_MODE_ONLY);
    VALUE(USERFAULTFD_IOC_NEW); VALUE(UFFDIO_API); VALUE(UFFDIO_REGISTER); VALUE(UFFDIO_UNREGISTER); VALUE(UFFDIO_WAKE); VALUE(UFFDIO_COPY);
    VALUE(UFFDIO_ZEROPAGE); VALUE(UFFDIO_WRITEPROTECT); VALUE(UFFDIO_CONTINUE); VALUE(UFFDIO_POISON);
    VALUE(_UFFDIO_REGISTER); VALUE(_UFFDIO_UNREGISTER); VALUE(_UFFDIO_WAKE); VALUE(_UFFDIO_COPY); VALUE(_UFFDIO_ZEROPAGE);
    VALUE(_UFFDIO_MOVE); VALUE(_UFFDIO_WRITEPROTECT); VALUE(_UFFDIO_CONTINUE); VALUE(_UFFDIO_POISON); VALUE(_UFFDIO_API);
    VALUE(UFFD_FEATURE_PAGEFAULT_FLAG_WP); VALUE(UFFD_FEATURE_EVENT_FORK); VALUE(UFFD_FEATURE_EVENT_REMAP);
    VALUE(UFFD_FEATURE_EVENT_REMOVE); VALUE(UFFD_FEATURE_MISSING_HUGETLBFS); VALUE(UFFD_FEATURE_MISSING_SHMEM);
    VALUE(UFFD_FEATURE_EVENT_UNMAP); VALUE(UFFD_FEATURE_SIGBUS); VALUE(UFFD_FEATURE_THREAD_ID);
    VALUE(UFFD_FEATURE_MINOR_HUGETLBFS); VALUE(UFFD_FEATURE_MINOR_SHMEM); VALUE(UFFD_FEATURE_EXACT_ADDRESS);
    VALUE(UFFD_FEATURE_WP_HUGETLBFS_SHMEM); VALUE(UFFD_FEATURE_WP_UNPOPULATED); VALUE(UFFD_FEATURE_POISON);
    VALUE(UFFD_FEATURE_WP_ASYNC); VALUE(UFFD_FEATURE_MOVE);
    VALUE(UFFDIO_REGISTER_MODE_MISSING); VALUE(UFFDIO_REGISTER_MODE_WP); VALUE(UFFDIO_REGISTER_MODE_MINOR);
    VALUE(UFFDIO_COPY_MODE_DONTWAKE); VALUE(UFFDIO_COPY_MODE_WP); VALUE(UFFDIO_ZEROPAGE_MODE_DONTWAKE);
    VALUE(UFFDIO_WRITEPROTECT_MODE_WP); VALUE(UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
    VALUE(UFFDIO_CONTINUE_MODE_DONTWAKE); VALUE(UFFDIO_CONTINUE_MODE_WP); VALUE(UFFDIO_POISON_MODE_DONTWAKE);
    VALUE(UFFD_EVENT_PAGEFAULT); VALUE(UFFD_EVENT_FORK); VALUE(UFFD_EVENT_REMAP); VALUE(UFFD_EVENT_REMOVE); VALUE(UFFD_EVENT_UNMAP);
    VALUE(UFFD_PAGEFAULT_FLAG_WRITE); VALUE(UFFD_PAGEFAULT_FLAG_WP); VALUE(UFFD_PAGEFAULT_FLAG_MINOR);
    SIZE(struct uffd_msg); OFFSET(struct uffd_msg, event); OFFSET(struct uffd_msg, arg.pagefault.flags);
    OFFSET(struct uffd_msg, arg.pagefault.address); OFFSET(struct uffd_msg, arg.pagefault.feat.ptid);
    SIZE(struct uffdio_api); OFFSET(struct uffdio_api, features); OFFSET(struct uffdio_api, ioctls);
    SIZE(struct uffdio_range); OFFSET(struct uffdio_range, len);
    SIZE(struct uffdio_register); OFFSET(struct uffdio_register, mode); OFFSET(struct uffdio_register, ioctls);
    SIZE(struct uffdio_copy); OFFSET(struct uffdio_copy, src); OFFSET(struct uffdio_copy, len);
    OFFSET(struct uffdio_copy, mode); OFFSET(struct uffdio_copy, copy);
    SIZE(struct uffdio_zeropage); OFFSET(struct uffdio_zeropage, mode); OFFSET(struct uffdio_zeropage, zeropage);
    SIZE(struct uffdio_continue); OFFSET(struct uffdio_continue, mode); OFFSET(struct uffdio_continue, mapped);
    SIZE(struct uffdio_poison); OFFSET(struct uffdio_poison, mode); OFFSET(struct uffdio_poison, updated);
    SIZE(struct uffdio_writeprotect); OFFSET(struct uffdio_writeprotect, mode);

    VALUE(PAGEMAP_SCAN); VALUE(PM_SCAN_WP_MATCHING); VALUE(PM_SCAN_CHECK_WPASYNC);
    VALUE(PAGE_IS_WPALLOWED); VALUE(PAGE_IS_WRITTEN); VALUE(PAGE_IS_FILE); VALUE(PAGE_IS_PRESENT); VALUE(PAGE_IS_SWAPPED);
    VALUE(PAGE_IS_PFNZERO); VALUE(PAGE_IS_HUGE); VALUE(PAGE_IS_SOFT_DIRTY);
    SIZE(struct page_region); OFFSET(struct page_region, end); OFFSET(struct page_region, categories);
    SIZE(struct pm_scan_arg); OFFSET(struct pm_scan_arg, flags); OFFSET(struct pm_scan_arg, start);
    OFFSET(struct pm_scan_arg, end); OFFSET(struct pm_scan_arg, walk_end); OFFSET(struct pm_scan_arg, vec);
    OFFSET(struct pm_scan_arg, vec_len); OFFSET(struct pm_scan_arg, max_pages); OFFSET(struct pm_scan_arg, category_inverted);
    OFFSET(struct pm_scan_arg, category_mask); OFFSET(struct pm_scan_arg, category_anyof_mask); OFFSET(struct pm_scan_arg, return_mask);

    VALUE(SYS_close); VALUE(SYS_getpid); VALUE(SYS_mmap); VALUE(SYS_munmap); VALUE(SYS_ioctl); VALUE(SYS_recvmsg); VALUE(SYS_socketpair); VALUE(SYS_ptrace); VALUE(SYS_userfaultfd); VALUE(SYS_pidfd_send_signal);
    VALUE(SYS_pidfd_open); VALUE(SYS_pidfd_getfd);

    SIZE(struct stat); OFFSET(struct stat, st_dev); OFFSET(struct stat, st_ino); OFFSET(struct stat, st_mode);
    OFFSET(struct stat, st_uid); OFFSET(struct stat, st_size); OFFSET(struct stat, st_blksize); OFFSET(struct stat, st_blocks);
    SIZE(struct statfs); OFFSET(struct statfs, f_type); OFFSET(struct statfs, f_bsize); OFFSET(struct statfs, f_bavail);
    SIZE(struct pollfd); OFFSET(struct pollfd, fd); OFFSET(struct pollfd, events); OFFSET(struct pollfd, revents);
    SIZE(struct msghdr); OFFSET(struct msghdr, msg_iov); OFFSET(struct msghdr, msg_iovlen); OFFSET(struct msghdr, msg_control);
    OFFSET(struct msghdr, msg_controllen); OFFSET(struct msghdr, msg_flags); SIZE(struct iovec); OFFSET(struct iovec, iov_len);
    VALUE(SOL_SOCKET); VALUE(SCM_RIGHTS); printf("CMSG_LEN %zu\nCMSG_SPACE %zu\n", CMSG_LEN(sizeof(int)), CMSG_SPACE(sizeof(int)));
    SIZE(struct timespec); OFFSET(struct timespec, tv_nsec);
    VALUE(POLLIN); VALUE(POLLOUT); VALUE(FIONBIO); VALUE(POLLERR); VALUE(POLLHUP); VALUE(POLLRDHUP); VALUE(MSG_DONTWAIT); VALUE(MSG_NOSIGNAL);
    SIZE(struct user_regs_struct);
#define REGISTER(r) OFFSET(struct user_regs_struct, r)
    REGISTER(r15); REGISTER(r14); REGISTER(r13); REGISTER(r12); REGISTER(rbp); REGISTER(rbx); REGISTER(r11); REGISTER(r10);
    REGISTER(r9); REGISTER(r8); REGISTER(rax); REGISTER(rcx); REGISTER(rdx); REGISTER(rsi); REGISTER(rdi); REGISTER(orig_rax);
    REGISTER(rip); REGISTER(cs); REGISTER(eflags); REGISTER(rsp); REGISTER(ss); REGISTER(fs_base); REGISTER(gs_base);
    REGISTER(ds); REGISTER(es); REGISTER(fs); REGISTER(gs);
    VALUE(PTRACE_CONT); VALUE(PTRACE_SINGLESTEP); VALUE(PTRACE_GETREGS); VALUE(PTRACE_SETREGS); VALUE(PTRACE_DETACH);
    VALUE(PTRACE_GETSIGINFO); VALUE(PTRACE_SEIZE); VALUE(PTRACE_INTERRUPT); VALUE(PTRACE_GETSIGMASK); VALUE(PTRACE_SETSIGMASK);
    VALUE(PTRACE_EVENT_STOP);
    OFFSET(siginfo_t, si_signo); OFFSET(siginfo_t, si_code); SIZE(siginfo_t);
    VALUE(SIGTRAP); VALUE(SIGSTOP); VALUE(SIGCONT); VALUE(SIGKILL);

    VALUE(O_RDONLY); VALUE(O_RDWR); VALUE(O_NONBLOCK); VALUE(O_CLOEXEC); VALUE(O_PATH); VALUE(EFD_NONBLOCK); VALUE(EFD_CLOEXEC);
    VALUE(SEEK_DATA); VALUE(SEEK_HOLE); VALUE(FALLOC_FL_KEEP_SIZE); VALUE(FALLOC_FL_PUNCH_HOLE);
    VALUE(PROT_READ); VALUE(PROT_WRITE); VALUE(MAP_SHARED); VALUE(MAP_PRIVATE); VALUE(MAP_ANONYMOUS); VALUE(MAP_NORESERVE); VALUE(MAP_POPULATE);
    VALUE(MADV_SEQUENTIAL); VALUE(MADV_WILLNEED); VALUE(MADV_DONTNEED); VALUE(MADV_HUGEPAGE); VALUE(MADV_NOHUGEPAGE);
    VALUE(TMPFS_MAGIC); VALUE(HUGETLBFS_MAGIC);
    VALUE(EPERM); VALUE(ENOENT); VALUE(ESRCH); VALUE(EINTR); VALUE(EIO); VALUE(ENXIO); VALUE(EBADF); VALUE(ECHILD); VALUE(EAGAIN);
    VALUE(ENOMEM); VALUE(EACCES); VALUE(EFAULT); VALUE(EBUSY); VALUE(EEXIST); VALUE(ENODEV); VALUE(EINVAL); VALUE(EMFILE); VALUE(ENOTTY);
    VALUE(ENOSPC); VALUE(EPIPE); VALUE(ENOSYS); VALUE(EOPNOTSUPP); VALUE(ETIMEDOUT);
    VALUE(ENETUNREACH); VALUE(ECONNRESET); VALUE(ECONNREFUSED); VALUE(EHOSTUNREACH);
    return 0;
}
