using FCtrans.Agent.Workers;
using Microsoft.AspNetCore.Builder;

namespace FCtrans.Agent.Rpc;

/// <summary><c>fctrans-agent stdio</c>: the RPC services of the host and of its workers for one connection, this process's stdin and stdout.</summary>
internal static class StdioServer
{
    public static async Task<int> RunAsync()
    {
        const UnixFileMode onlyUs = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        // A user who is not root can still be told what this host lacks, and that root is one of it.
        string directory = Environment.IsPrivilegedProcess
            ? Directory.CreateDirectory(WorkerDirectory.Root, onlyUs).FullName : Directory.CreateTempSubdirectory("fctrans-").FullName;
        string socketPath = Path.Combine(directory, $"stdio-{Environment.ProcessId}.sock");
        File.Delete(socketPath);
        await using var application = GrpcServer.Build(socketPath, _ => { });
        application.MapGrpcService<HostAgentService>();
        application.MapGrpcService<WorkerForwarder>();
        await application.StartAsync();
        // One connection, ours: its name goes as soon as it stands, so that nothing stays behind whatever ends this process.
        await Bridge.RunAsync(socketPath, () =>
        {
            File.Delete(socketPath);
            if (!Environment.IsPrivilegedProcess)
            {
                Directory.Delete(directory);
            }
        });
        return 0;
    }
}
