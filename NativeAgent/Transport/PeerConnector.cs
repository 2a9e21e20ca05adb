using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;

namespace FCtrans.Agent.Transport;

/// <summary>A peer could not be reached in the time given, or would not have us. The message says what to do.</summary>
internal sealed class PeerConnectionException(string message, bool final, Exception? inner = null) : IOException(message, inner)
{
    /// <summary>The peer answered and refused: trying again is of no use.</summary>
    public bool IsRefused { get; } = final;

    /// <summary>The host is up, and nothing listens there: its worker has ended, or is about to be started again.</summary>
    public bool NobodyListens { get; } = inner is SocketException { SocketErrorCode: SocketError.ConnectionRefused };

    /// <summary>
    /// Whether to give up a connection that was lost. A worker that its supervisor starts again listens within a moment; where nobody does
    /// for longer, it has given up.
    /// </summary>
    /// <param name="milliseconds">Since it was lost.</param>
    /// <param name="patience">For a host that does not answer, in milliseconds.</param>
    public bool IsFinalAfter(long milliseconds, long patience)
    {
        const long restart = 5000;
        return IsRefused || milliseconds >= (NobodyListens ? Math.Min(patience, restart) : patience);
    }
}

/// <summary>Connects to a peer's <see cref="PeerListener"/>.</summary>
internal static class PeerConnector
{
    private const int AttemptMilliseconds = 3000;

    /// <summary>At least, once there is a connection: a host that answered late in an attempt is not to be begun with anew.</summary>
    private const int HandshakeMilliseconds = 1000;
    private const int FirstPauseMilliseconds = 20;

    /// <summary>A worker that is started again is there from one moment to the next, and to be refused costs neither side anything.</summary>
    private const int LongestPauseMilliseconds = 80;

    /// <summary>
    /// Connects, proves who we are, checks who the peer is, and says Hello. Tries again while the peer can't be reached, until
    /// <paramref name="timeout"/> has passed; a refusal ends it at once.
    /// </summary>
    /// <param name="thumbprint">The peer's, in hexadecimal. Unused without TLS.</param>
    /// <param name="certificate">Ours; null only without TLS.</param>
    /// <exception cref="PeerConnectionException">It did not work.</exception>
    /// <exception cref="OperationCanceledException"><paramref name="cancellation"/> came first.</exception>
    public static FrameConnection Connect(
        IPAddress address, int port, string thumbprint, WorkerCertificate? certificate, PeerHello hello, TimeSpan timeout,
        bool tls, out PeerHello peer, CancellationToken cancellation = default)
    {
        long end = Environment.TickCount64 + (long)timeout.TotalMilliseconds;
        int pause = FirstPauseMilliseconds;
        while (true)
        {
            cancellation.ThrowIfCancellationRequested();
            try
            {
                int left = (int)Math.Clamp(end - Environment.TickCount64, 100, AttemptMilliseconds);
                return Attempt(address, port, thumbprint, certificate, hello, left, tls, out peer, cancellation);
            }
            catch (Exception e) when (e is ProtocolException or AuthenticationException)
            {
                throw new PeerConnectionException(
                    e is ProtocolException
                        ? $"{address}:{port} refused the connection: {e.Message}"
                        : $"The worker at {address}:{port} is not the one that this split VM was started with (its certificate differs). "
                            + "Another program may be using that port; end the migration and start it again.",
                    final: true, e);
            }
            catch (Exception e) when (e is IOException or SocketException)
            {
                if (Environment.TickCount64 + pause >= end)
                {
                    throw new PeerConnectionException(
                        $"The worker at {address}:{port} could not be reached within {timeout.TotalSeconds:0.#} s: {e.Message} "
                        + "Check that the host is up and that a firewall lets this port through.",
                        final: false, e);
                }
            }

            cancellation.WaitHandle.WaitOne(pause);
            pause = Math.Min(pause * 2, LongestPauseMilliseconds);
        }
    }

    private static FrameConnection Attempt(
        IPAddress address, int port, string thumbprint, WorkerCertificate? certificate, PeerHello hello, int milliseconds,
        bool tls, out PeerHello peer, CancellationToken cancellation)
    {
        long end = Environment.TickCount64 + milliseconds;
        var socket = TcpConnector.Connect(address, port, milliseconds, cancellation);
        // One deadline over all that follows; closing the socket is what ends a blocked handshake.
        using var deadline = new Timer(
            s => ((Socket)s!).Dispose(), socket, Math.Max(HandshakeMilliseconds, end - Environment.TickCount64), Timeout.Infinite);
        Stream? stream = null;
        try
        {
            var plain = new SocketStream(socket);
            TlsRecordStream? records = null;
            stream = plain;
            if (tls)
            {
                records = new TlsRecordStream(plain);
                var secure = new SslStream(records, leaveInnerStreamOpen: false);
                stream = secure;
                secure.AuthenticateAsClient(PeerTls.Client(
                    certificate ?? throw new ArgumentNullException(nameof(certificate)), thumbprint));
            }

            var connection = new FrameConnection(stream, socket, hello.Pages, hello.Purpose, connector: true, records);
            connection.SendHello(hello);
            peer = connection.ReadHello();
            if (peer.SplitId != hello.SplitId || peer.Pages != hello.Pages)
            {
                throw connection.Refuse("The listener serves another VM.");
            }

            connection.Establish(hello.Pages, hello.Purpose);
            deadline.Change(Timeout.Infinite, Timeout.Infinite);

            return connection;
        }
        catch (Exception e)
        {
            stream?.Dispose();
            socket.Dispose();
            if (e is ObjectDisposedException or InvalidOperationException)
            {
                throw new IOException("The handshake took too long.", e);
            }

            throw;
        }
    }
}
