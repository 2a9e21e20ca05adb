using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;

namespace FCtrans.Agent.Transport;

/// <summary>TLS 1.3 with AES-GCM and pinned certificates, and how our sockets are set: the same on both sides.</summary>
internal static class PeerTls
{
    private static readonly CipherSuitesPolicy s_suites = OperatingSystem.IsLinux()
        ? new([TlsCipherSuite.TLS_AES_128_GCM_SHA256, TlsCipherSuite.TLS_AES_256_GCM_SHA384])
        : throw new PlatformNotSupportedException();

    public static SslServerAuthenticationOptions Server(WorkerCertificate own, IReadOnlyCollection<string> thumbprints) => new()
    {
        ServerCertificateContext = own.Context,
        ClientCertificateRequired = true,
        EnabledSslProtocols = SslProtocols.Tls13,
        CipherSuitesPolicy = s_suites,
        CertificateRevocationCheckMode = X509RevocationMode.NoCheck,
        AllowTlsResume = false,
        RemoteCertificateValidationCallback = (_, certificate, _, _) => IsPinned(certificate, thumbprints),
    };

    public static SslClientAuthenticationOptions Client(WorkerCertificate own, string thumbprint) => new()
    {
        TargetHost = "fctrans",
        ClientCertificateContext = own.Context,
        EnabledSslProtocols = SslProtocols.Tls13,
        CipherSuitesPolicy = s_suites,
        CertificateRevocationCheckMode = X509RevocationMode.NoCheck,
        AllowTlsResume = false,
        RemoteCertificateValidationCallback = (_, certificate, _, _) => IsPinned(certificate, [thumbprint]),
    };

    /// <summary>
    /// Small frames leave at once, and a peer that has vanished without a word is noticed: after 5 s when it owes us an acknowledgement,
    /// after about 10 s when nothing is under way.
    /// </summary>
    public static void Configure(Socket socket)
    {
        const int TcpUserTimeout = 18;
        socket.NoDelay = true;
        socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);
        socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime, 4);
        socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveInterval, 2);
        socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveRetryCount, 3);
        socket.SetRawSocketOption((int)SocketOptionLevel.Tcp, TcpUserTimeout, BitConverter.GetBytes(5000));
    }

    private static bool IsPinned(X509Certificate? certificate, IReadOnlyCollection<string> thumbprints)
    {
        if (certificate is null)
        {
            return false;
        }

        string found = WorkerCertificate.ThumbprintOf(certificate);
        return thumbprints.Any(t => string.Equals(t, found, StringComparison.OrdinalIgnoreCase));
    }
}
