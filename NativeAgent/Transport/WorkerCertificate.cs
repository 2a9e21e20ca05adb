using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace FCtrans.Agent.Transport;

/// <summary>
/// A worker's throw-away key pair: ECDSA P-256, self-signed. Nobody trusts its name or dates; the peers are told its
/// thumbprint over SSH and accept that one only. Lives as long as the worker's directory, so that a restarted worker has the
/// same thumbprint. Owns the certificate.
/// </summary>
internal sealed class WorkerCertificate : IDisposable
{
    private const string FileName = "key.pem";

    private WorkerCertificate(X509Certificate2 certificate)
    {
        Certificate = certificate;
        Thumbprint = ThumbprintOf(certificate);
        Context = SslStreamCertificateContext.Create(certificate, null, offline: true);
    }

    public X509Certificate2 Certificate { get; }

    public SslStreamCertificateContext Context { get; }

    /// <summary>SHA-256 of the certificate, 64 upper-case hexadecimal digits.</summary>
    public string Thumbprint { get; }

    public static string ThumbprintOf(X509Certificate certificate) =>
        Convert.ToHexString(SHA256.HashData(certificate.GetRawCertData()));

    /// <summary>Makes a new one and saves it in <paramref name="directory"/>, readable by its owner only.</summary>
    public static WorkerCertificate Create(string directory)
    {
        if (!OperatingSystem.IsLinux())
        {
            throw new PlatformNotSupportedException();
        }

        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=fctrans worker", key, HashAlgorithmName.SHA256);
        var now = DateTimeOffset.UtcNow;
        // A clock that is off between hosts is no reason to refuse a pinned peer, so the dates are wide and never checked.
        using var certificate = request.CreateSelfSigned(now.AddDays(-2), now.AddYears(20));
        string pem = certificate.ExportCertificatePem() + "\n" + key.ExportPkcs8PrivateKeyPem() + "\n";
        string path = Path.Combine(directory, FileName);
        string temporary = path + ".new";
        File.Delete(temporary);
        using (var file = new FileStream(temporary, new FileStreamOptions
        {
            Mode = FileMode.CreateNew,
            Access = FileAccess.Write,
            UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
        }))
        {
            file.Write(System.Text.Encoding.ASCII.GetBytes(pem));
        }

        File.Move(temporary, path, overwrite: true);
        return Load(directory);
    }

    /// <exception cref="IOException">There is none.</exception>
    /// <exception cref="CryptographicException">It can't be read.</exception>
    public static WorkerCertificate Load(string directory)
    {
        string pem = File.ReadAllText(Path.Combine(directory, FileName));
        return new(X509Certificate2.CreateFromPem(pem, pem));
    }

    public static WorkerCertificate LoadOrCreate(string directory) =>
        File.Exists(Path.Combine(directory, FileName)) ? Load(directory) : Create(directory);

    public void Dispose() => Certificate.Dispose();
}
