using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Interop;

/// <summary><c>struct msghdr</c> on x86-64. Pointers are addresses in whichever process uses it.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct MessageHeader
{
    public ulong Name;
    public uint NameBytes;
    private readonly uint _padding;
    public ulong Pieces;
    public ulong PieceCount;
    public ulong Control;
    public ulong ControlBytes;
    public int Flags;
    private readonly int _padding2;
}

/// <summary><c>struct iovec</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct MessagePiece
{
    public ulong Base;
    public ulong Bytes;
}

/// <summary>A control message with one descriptor: <c>struct cmsghdr</c> and an int, padded as CMSG_SPACE says.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct DescriptorControl
{
    public const int SocketLevel = 1;
    public const int Rights = 1;

    /// <summary>CMSG_LEN(sizeof(int))</summary>
    public const int UsedBytes = 20;

    public ulong Bytes;
    public int Level;
    public int Type;
    public int Descriptor;
    private readonly int _padding;
}

/// <summary>Sends a descriptor over a Unix socket (<c>unix(7)</c>, SCM_RIGHTS).</summary>
internal static unsafe class DescriptorMessage
{
    /// <exception cref="KernelException">It could not be sent.</exception>
    public static void Send(SafeFileHandle socket, SafeFileHandle descriptor)
    {
        byte content = 1;
        var piece = new MessagePiece { Base = (ulong)&content, Bytes = 1 };
        var control = new DescriptorControl
        {
            Bytes = DescriptorControl.UsedBytes,
            Level = DescriptorControl.SocketLevel,
            Type = DescriptorControl.Rights,
            Descriptor = (int)descriptor.DangerousGetHandle(),
        };

        // Safe: all that the header points to lives on this stack until the call has returned, and the handles are the caller's.
        var header = new MessageHeader
        {
            Pieces = (ulong)&piece,
            PieceCount = 1,
            Control = (ulong)&control,
            ControlBytes = (ulong)sizeof(DescriptorControl),
        };
        if (Libc.SendMessage(socket, &header, MessageFlag.NoSignal) < 0)
        {
            throw KernelException.Of(Marshal.GetLastPInvokeError(), "send a descriptor");
        }
    }
}
