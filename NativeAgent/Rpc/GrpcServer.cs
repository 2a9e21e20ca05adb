using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace FCtrans.Agent.Rpc;

/// <summary>
/// Makes a gRPC server on a Unix socket: HTTP/2 without TLS, since the directory's mode (0700) guards the socket and SSH the
/// way to it.
/// </summary>
internal static class GrpcServer
{
    public static WebApplication Build(string socketPath, Action<IServiceCollection> services)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
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
