namespace FCtrans.Agent.Interop;

/// <summary>System call numbers of x86-64 (<c>SYS_…</c>) that have no wrapper in every C library, or that FCtrans injects.</summary>
internal static class SystemCall
{
    public const int Close = 3;
    public const int Mmap = 9;
    public const int Munmap = 11;
    public const int Ioctl = 16;
    public const int GetPid = 39;
    public const int RecvMsg = 47;
    public const int SocketPair = 53;
    public const int Ptrace = 101;
    public const int Tgkill = 234;
    public const int Userfaultfd = 323;
    public const int PidfdSendSignal = 424;
    public const int PidfdOpen = 434;
    public const int PidfdGetfd = 438;
}
