using System.Net.Sockets;
using FCtrans.Agent.Interop;
using Xunit;

namespace FCtrans.Kernel.Tests.Interop;

/// <summary>A path is free again when the program that had it was killed.</summary>
public sealed class UnixSocketsTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("fctrans-").FullName;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Fact]
    public void A_socket_is_taken_while_somebody_has_it_and_stale_after()
    {
        string path = Path.Combine(_directory, "monitor");
        using (var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
        {
            socket.Bind(new UnixDomainSocketEndPoint(path));
            socket.Listen();
            Assert.True(UnixSockets.IsTaken(path));
            UnixSockets.RemoveStale(path);
            Assert.True(Path.Exists(path));

            // Its name stays when it is closed as by a kill: .NET would remove it.
            File.Move(path, path + ".kept");
        }

        File.Move(path + ".kept", path);
        Assert.True(UnixSockets.IsSocket(path));
        Assert.False(UnixSockets.IsTaken(path));
        UnixSockets.RemoveStale(path);
        Assert.False(Path.Exists(path));
    }

    [Fact]
    public void What_is_no_socket_is_taken_and_never_removed()
    {
        string path = Path.Combine(_directory, "file");
        File.WriteAllText(path, "");
        Assert.True(UnixSockets.IsTaken(path));
        UnixSockets.RemoveStale(path);
        Assert.True(File.Exists(path));
        Assert.False(UnixSockets.IsTaken(path + ".none"));
    }
}
