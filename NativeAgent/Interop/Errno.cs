namespace FCtrans.Agent.Interop;

/// <summary>
/// The error numbers of Linux on x86-64 that FCtrans tells apart, by their C names, and what each means for a user.
/// The one table of its kind: no other file compares a bare number.
/// </summary>
internal static class Errno
{
    public const int None = 0;
    public const int EPERM = 1;
    public const int ENOENT = 2;
    public const int ESRCH = 3;
    public const int EINTR = 4;
    public const int EIO = 5;
    public const int ENXIO = 6;
    public const int EBADF = 9;
    public const int ECHILD = 10;
    public const int EAGAIN = 11;
    public const int ENOMEM = 12;
    public const int EACCES = 13;
    public const int EFAULT = 14;
    public const int EBUSY = 16;
    public const int EEXIST = 17;
    public const int ENODEV = 19;
    public const int EINVAL = 22;
    public const int EMFILE = 24;
    public const int ENOTTY = 25;
    public const int ENOSPC = 28;
    public const int EPIPE = 32;
    public const int ENOSYS = 38;
    public const int EOPNOTSUPP = 95;
    public const int ENETUNREACH = 101;
    public const int ECONNRESET = 104;
    public const int ETIMEDOUT = 110;
    public const int ECONNREFUSED = 111;
    public const int EHOSTUNREACH = 113;

    /// <summary>The C name, such as <c>EINVAL</c>; the number where the table has none.</summary>
    public static string Name(int errno) => errno switch
    {
        None => "no error",
        EPERM => "EPERM",
        ENOENT => "ENOENT",
        ESRCH => "ESRCH",
        EINTR => "EINTR",
        EIO => "EIO",
        ENXIO => "ENXIO",
        EBADF => "EBADF",
        ECHILD => "ECHILD",
        EAGAIN => "EAGAIN",
        ENOMEM => "ENOMEM",
        EACCES => "EACCES",
        EFAULT => "EFAULT",
        EBUSY => "EBUSY",
        EEXIST => "EEXIST",
        ENODEV => "ENODEV",
        EINVAL => "EINVAL",
        EMFILE => "EMFILE",
        ENOTTY => "ENOTTY",
        ENOSPC => "ENOSPC",
        EPIPE => "EPIPE",
        ENOSYS => "ENOSYS",
        EOPNOTSUPP => "EOPNOTSUPP",
        ENETUNREACH => "ENETUNREACH",
        ECONNRESET => "ECONNRESET",
        ETIMEDOUT => "ETIMEDOUT",
        ECONNREFUSED => "ECONNREFUSED",
        EHOSTUNREACH => "EHOSTUNREACH",
        _ => $"errno {errno}",
    };

    /// <summary>What the user can do about <paramref name="errno"/> where the caller knows nothing more exact.</summary>
    public static string Remedy(int errno) => errno switch
    {
        EPERM or EACCES => "Run the agent as root, and check that no security module or sandbox forbids the call.",
        ESRCH or ECHILD => "The process has ended; look whether the VM still runs.",
        EBUSY => "Another program has already registered this memory; end it first.",
        ENOMEM => "Free some memory on this host.",
        EMFILE => "Raise the limit of open files (ulimit -n).",
        ENOSPC => "Free some room in the file system that holds the guests' memory.",
        ENOSYS or ENOTTY or EOPNOTSUPP => "Run a newer kernel: Linux 6.7 or later has all that FCtrans uses.",
        _ => "",
    };
}
