namespace FCtrans.Agent.Interop;

/// <summary>A call to the kernel failed: what was tried, with which error, and what the user can do about it.</summary>
internal sealed class KernelException : IOException
{
    /// <param name="action">What was tried, as the rest of "Could not …".</param>
    /// <param name="errno">The kernel's error number, positive.</param>
    /// <param name="remedy">What to do; when null, what <see cref="Interop.Errno.Remedy"/> says.</param>
    public KernelException(string action, int errno, string? remedy = null)
        : base(Compose(action, errno, remedy ?? Interop.Errno.Remedy(errno)))
    {
        Action = action;
        Errno = errno;
        Remedy = remedy ?? Interop.Errno.Remedy(errno);
    }

    public string Action { get; }

    /// <summary>
    /// For <c>Of(Marshal.GetLastPInvokeError(), $"…")</c>: the number comes first, because composing the text may call the C
    /// library and change it.
    /// </summary>
    public static KernelException Of(int errno, string action) => new(action, errno);

    public int Errno { get; }

    public string Remedy { get; }

    private static string Compose(string action, int errno, string remedy)
    {
        string text = $"Could not {action}: {System.Runtime.InteropServices.Marshal.GetPInvokeErrorMessage(errno)} ({Interop.Errno.Name(errno)}).";
        return remedy.Length == 0 ? text : text + " " + remedy;
    }
}
