using System.Net;
using Grpc.Core;
using Grpc.Net.Client;

namespace FCtrans.Client;

/// <summary>
/// gRPC over the standard input and output of a remote command: HTTP/2 without TLS, since SSH protects it. A connection that
/// ended is made anew for the next call. Owns nothing but its own channel; the session belongs to the host's connection.
/// </summary>
internal sealed class SshRpcChannel : IDisposable
{
    private static readonly TimeSpan s_exitLimit = TimeSpan.FromSeconds(2);

    private readonly SshSession _session;
    private readonly string _host;
    private readonly string _command;
    private readonly SocketsHttpHandler _handler;
    private readonly GrpcChannel _channel;
    private SshCommandStream? _stream;
    private FCtransException? _connectFailure;

    public SshRpcChannel(SshSession session, string host, string command)
    {
        _session = session;
        _host = host;
        _command = command;
        _handler = new SocketsHttpHandler
        {
            ConnectCallback = ConnectAsync,
            PooledConnectionIdleTimeout = Timeout.InfiniteTimeSpan,
            PooledConnectionLifetime = Timeout.InfiniteTimeSpan,
            EnableMultipleHttp2Connections = false,
            UseProxy = false,
            ActivityHeadersPropagator = null,

            // Finds a connection that is dead though TCP does not know it yet.
            KeepAlivePingDelay = TimeSpan.FromSeconds(15),
            KeepAlivePingTimeout = TimeSpan.FromSeconds(20),
            KeepAlivePingPolicy = HttpKeepAlivePingPolicy.WithActiveRequests,
        };
        _channel = GrpcChannel.ForAddress("http://agent", new GrpcChannelOptions
        {
            HttpHandler = _handler,
            DisposeHttpClient = true,
            MaxReceiveMessageSize = 64 << 20,
            MaxRetryAttempts = null,
        });
        Invoker = _channel.CreateCallInvoker();
    }

    /// <summary>What the generated clients are made with.</summary>
    public CallInvoker Invoker { get; }

    /// <summary>
    /// Makes one short call. A failure becomes what the user is to read; NOT_FOUND, FAILED_PRECONDITION and the like are left
    /// to <paramref name="translate"/>, which knows what was asked (null: no special meaning).
    /// </summary>
    public async Task<T> CallAsync<T>(
        string what, Func<CallOptions, AsyncUnaryCall<T>> call, TimeSpan limit, CancellationToken cancellation,
        Func<RpcException, FCtransException?>? translate = null)
    {
        using HostCalls.Measurement measurement = HostCalls.Begin(_host, what);
        try
        {
            using AsyncUnaryCall<T> pending = call(new CallOptions(
                deadline: DateTime.UtcNow + limit, cancellationToken: cancellation));
            return measurement.Answered(await pending.ResponseAsync.ConfigureAwait(false));
        }
        catch (RpcException e) when (e.StatusCode == StatusCode.Cancelled && cancellation.IsCancellationRequested)
        {
            throw new OperationCanceledException(cancellation);
        }
        catch (RpcException e)
        {
            throw translate?.Invoke(e) ?? await TranslateAsync(e, what, limit).ConfigureAwait(false);
        }
    }

    /// <summary>Turns a failure of the call or of the connection under it into one of ours.</summary>
    public async Task<FCtransException> TranslateAsync(RpcException e, string what, TimeSpan limit)
    {
        if (Interlocked.Exchange(ref _connectFailure, null) is { } failure)
        {
            return failure;
        }

        string detail = e.Status.Detail;
        switch (e.StatusCode)
        {
            case StatusCode.DeadlineExceeded:
                return Failure.HostTimeout(_host, what, limit, e);
            case StatusCode.Unavailable or StatusCode.Internal or StatusCode.Unknown or StatusCode.Cancelled:
                break;
            case StatusCode.Unimplemented:
                return Failure.AgentRefused(_host, $"its agent does not know how to do this ({what})", e);
            default:
                return Failure.AgentRefused(_host, detail, e);
        }

        if (_stream is { } stream && await stream.WaitForExitAsync(s_exitLimit).ConfigureAwait(false) is { } status)
        {
            string error = stream.ErrorTail;
            return stream.BytesRead == 0
                ? Failure.AgentStartFailed(_host, error.Length > 0 ? error : $"it ended with status {status}", e)
                : Failure.ConnectionLost(_host, $"its agent ended with status {status}. {error}", e);
        }

        // An answer with a status came over a connection that lives: it is the agent's own word.
        return e.Status.DebugException is null && _session.IsConnected
            ? Failure.AgentRefused(_host, detail, e)
            : Failure.ConnectionLost(_host, detail, e);
    }

    public void Dispose()
    {
        _channel.Dispose();
        _handler.Dispose();
        _stream?.Dispose();
    }

    private async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancellation)
    {
        try
        {
            SshCommandStream stream = await _session.StartAsync(_command, cancellation).ConfigureAwait(false);
            _stream = stream;
            return stream;
        }
        catch (FCtransException e)
        {
            // HttpClient would wrap it beyond recognition.
            _connectFailure = e;
            throw;
        }
    }
}
