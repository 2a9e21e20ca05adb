namespace FCtrans.Agent.Interop;

/// <summary><c>O_*</c> of x86-64.</summary>
internal static class OpenFlag
{
    public const int ReadOnly = 0;
    public const int ReadWrite = 2;
    public const int NonBlock = 0x800;
    public const int CloseOnExec = 0x80000;
    public const int PathOnly = 0x200000;
}
