using System.Reflection;
using FCtrans.Agent.Rpc;
using FCtrans.Agent.Workers;

namespace FCtrans.Agent;

/// <summary>The agent's commands. People use the PowerShell module; these are what it calls over SSH.</summary>
internal static class Program
{
    private const string Usage = """
        fctrans-agent stdio      serve the RPC of the host and its workers on stdin and stdout
        fctrans-agent version    print the version
        (supervise DIR, worker DIR: started by the agent itself)
        """;

    private static async Task<int> Main(string[] args)
    {
        switch (args)
        {
            case ["stdio"]:
                return await StdioServer.RunAsync();

            case ["supervise", string path] when TryDirectory(path, out var directory):
                return Supervisor.Run(directory);

            case ["worker", string path] when TryDirectory(path, out var directory):
                return WorkerHost.Run(directory);

            case ["version"]:
                Console.WriteLine(Version);
                return 0;

            default:
                Console.Error.WriteLine(Usage);
                return 2;
        }
    }

    /// <summary>The agent's version, as the module's.</summary>
    public static string Version { get; } =
        typeof(Program).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion.Split('+')[0] ?? "0";

    private static bool TryDirectory(string path, out WorkerDirectory directory)
    {
        string splitId = Path.GetFileName(Path.GetDirectoryName(path) ?? "");
        if (WorkerDirectory.IsSplitId(splitId) && WorkerDirectory.TryParseRole(Path.GetFileName(path), out var role))
        {
            directory = WorkerDirectory.Of(splitId, role);
            return directory.Path == path;
        }

        directory = null!;
        return false;
    }
}
