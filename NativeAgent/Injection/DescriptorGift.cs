using System.Runtime.InteropServices;
using FCtrans.Agent.Interop;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Injection;

/// <summary>
/// Gives a stopped process a descriptor of ours: the process makes a pair of connected sockets, we take one end by
/// <c>pidfd_getfd</c> and send the descriptor through it, and the process receives it from the other. Nothing has a name, so neither
/// namespaces nor permissions of files are in the way. All that is made for it in the process is undone, whatever fails.
/// </summary>
internal static unsafe class DescriptorGift
{
    private const int ScratchBytes = 4096;
    private const int UnixFamily = 1;
    private const int Datagram = 2;

    // Places in the scratch page.
    private const int PairAt = 0;
    private const int ContentAt = 64;
    private const int PieceAt = 128;
    private const int ControlAt = 256;
    private const int HeaderAt = 512;

    /// <summary>Returns the descriptor's number in the process. The process then owns it.</summary>
    /// <exception cref="InjectionException">A step was refused there.</exception>
    /// <exception cref="KernelException">A step of ours was.</exception>
    public static int Give(TracedThread traced, int processId, PidFd process, SafeFileHandle descriptor)
    {
        const int readWrite = 3;
        const int privateAnonymous = 0x22;
        long scratch = Check(traced.Invoke(SystemCall.Mmap, 0, ScratchBytes, readWrite, privateAnonymous, -1, 0), "map a page");
        try
        {
            using var memory = SparseFile.Open($"/proc/{processId}/mem", write: true);
            Check(
                traced.Invoke(SystemCall.SocketPair, UnixFamily, Datagram | OpenFlag.CloseOnExec | OpenFlag.NonBlock, 0, scratch + PairAt, 0, 0),
                "make a pair of sockets");
            var pair = Read<(int Ours, int Theirs)>(memory, scratch + PairAt);
            try
            {
                using (var ours = process.GetFd(pair.Ours))
                {
                    DescriptorMessage.Send(ours, descriptor);
                }

                Write(memory, scratch + PieceAt, new MessagePiece { Base = (ulong)(scratch + ContentAt), Bytes = 1 });
                Write(memory, scratch + HeaderAt, new MessageHeader
                {
                    Pieces = (ulong)(scratch + PieceAt),
                    PieceCount = 1,
                    Control = (ulong)(scratch + ControlAt),
                    ControlBytes = (ulong)sizeof(DescriptorControl),
                });
                Check(traced.Invoke(SystemCall.RecvMsg, pair.Theirs, scratch + HeaderAt, 0, 0, 0, 0), "receive a descriptor");
                var control = Read<DescriptorControl>(memory, scratch + ControlAt);
                return control is { Bytes: DescriptorControl.UsedBytes, Level: DescriptorControl.SocketLevel, Type: DescriptorControl.Rights }
                    ? control.Descriptor
                    : throw new InjectionException($"Process {processId} received no descriptor.", "");
            }
            finally
            {
                traced.Invoke(SystemCall.Close, pair.Ours, 0, 0, 0, 0, 0);
                traced.Invoke(SystemCall.Close, pair.Theirs, 0, 0, 0, 0, 0);
            }
        }
        finally
        {
            traced.Invoke(SystemCall.Munmap, scratch, ScratchBytes, 0, 0, 0, 0);
        }
    }

    private static long Check(long result, string what) => result >= 0
        ? result
        : throw new InjectionException($"The process could not {what} ({Errno.Name((int)-result)}).", Errno.Remedy((int)-result));

    private static T Read<T>(SafeFileHandle memory, long address)
        where T : unmanaged
    {
        T value;
        return SparseFile.Read(memory, &value, (nuint)sizeof(T), address) == sizeof(T)
            ? value : throw new InjectionException("The process's memory could not be read.", "");
    }

    private static void Write<T>(SafeFileHandle memory, long address, T value)
        where T : unmanaged
    {
        if (SparseFile.Write(memory, &value, (nuint)sizeof(T), address) != sizeof(T))
        {
            throw new InjectionException("The process's memory could not be written.", "");
        }
    }
}
