using FCtrans.FakeAgent;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;

string home = Environment.GetEnvironmentVariable("HOME")!;
string refusal = Path.Combine(home, "refuse-to-start");
if (File.Exists(refusal))
{
    Console.Error.WriteLine(File.ReadAllText(refusal));
    return 3;
}

var transport = new StdioTransport();
WebApplicationBuilder builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
builder.WebHost.UseKestrelCore().ConfigureKestrel(o => o.Listen(transport.EndPoint, l => l.Protocols = HttpProtocols.Http2));
builder.Services.AddRouting();
builder.Services.AddGrpc();
builder.Services.AddSingleton<IConnectionListenerFactory>(transport);
builder.Services.AddSingleton(new FakeState(home));
WebApplication app = builder.Build();
app.MapGrpcService<FakeHostAgent>();
app.MapGrpcService<FakeWorker>();
await app.StartAsync();
await transport.Closed;
return 0;
