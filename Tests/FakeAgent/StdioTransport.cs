using System.IO.Pipelines;
using System.Net;
using Microsoft.AspNetCore.Connections;

namespace FCtrans.FakeAgent;

internal sealed class StdioEndPoint : EndPoint;

/// <summary>One connection: this process's stdin and stdout.</summary>
internal sealed class StdioTransport : IConnectionListenerFactory, IConnectionListenerFactorySelector, IConnectionListener, IDuplexPipe
{
    private readonly TaskCompletionSource _closed = new();
    private bool _accepted;

    public Task Closed => _closed.Task;

    public EndPoint EndPoint { get; } = new StdioEndPoint();

    public PipeReader Input { get; } = PipeReader.Create(Console.OpenStandardInput());

    public PipeWriter Output { get; } = PipeWriter.Create(Console.OpenStandardOutput());

    public bool CanBind(EndPoint endpoint) => endpoint is StdioEndPoint;

    public ValueTask<IConnectionListener> BindAsync(EndPoint endpoint, CancellationToken cancellationToken = default) => new(this);

    public async ValueTask<ConnectionContext?> AcceptAsync(CancellationToken cancellationToken = default)
    {
        if (_accepted)
        {
            await _closed.Task.WaitAsync(cancellationToken);
            return null;
        }

        _accepted = true;
        var context = new DefaultConnectionContext("stdio", this, this);
        context.ConnectionClosed.Register(_closed.SetResult);
        return new Connection(context, this);
    }

    public ValueTask UnbindAsync(CancellationToken cancellationToken = default) => default;

    public ValueTask DisposeAsync() => default;

    private sealed class Connection(DefaultConnectionContext inner, StdioTransport owner) : ConnectionContext
    {
        public override IDuplexPipe Transport { get; set; } = owner;

        public override string ConnectionId { get; set; } = inner.ConnectionId;

        public override Microsoft.AspNetCore.Http.Features.IFeatureCollection Features => inner.Features;

        public override IDictionary<object, object?> Items { get; set; } = new Dictionary<object, object?>();

        public override ValueTask DisposeAsync()
        {
            owner._closed.TrySetResult();
            return default;
        }
    }
}
