using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;

namespace FCtrans.Agent.Rpc;

/// <summary>
/// Makes a gRPC server on a Unix socket: HTTP/2 without TLS, since the directory's mode (0700) guards the socket and SSH the
/// way to it.
/// </summary>
internal static class GrpcServer
{
    public static WebApplication Build(string socketPath, Action<IServiceCollection> services)
    {
        // The other builders read appsettings.json where the process happens to stand, and watch that folder with all that is
        // below it for changes: of a daemon, which stands in the root folder, all folders of the host.
        var builder = WebApplication.CreateEmptyBuilder(new());
        builder.WebHost.UseKestrelCore();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.ListenUnixSocket(socketPath, listen => listen.Protocols = HttpProtocols.Http2);
            kestrel.AddServerHeader = false;
        });
        builder.Services.AddGrpc();
        services(builder.Services);
        return builder.Build();
    }
}
