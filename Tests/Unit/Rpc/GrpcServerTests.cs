using FCtrans.Agent.Rpc;
using Microsoft.Extensions.Configuration;
using Xunit;

namespace FCtrans.Unit.Tests.Rpc;

public sealed class GrpcServerTests
{
    [Fact]
    public async Task No_file_of_the_folder_it_stands_in_configures_it_or_is_watched()
    {
        string socket = Path.Combine(Directory.CreateTempSubdirectory().FullName, "rpc.sock");
        await using var application = GrpcServer.Build(socket, _ => { });
        await application.StartAsync();
        Assert.True(File.Exists(socket));
        Assert.Empty(((IConfigurationRoot)application.Configuration).Providers.OfType<FileConfigurationProvider>());
        Assert.DoesNotContain(
            Directory.EnumerateFileSystemEntries("/proc/self/fd"), fd => new FileInfo(fd).LinkTarget == "anon_inode:inotify");
        await application.StopAsync();
        Directory.Delete(Path.GetDirectoryName(socket)!, recursive: true);
    }
}
