using System.Security.Cryptography;

namespace FCtrans.Client;

/// <summary>The agent's executable as the module brings it, and the name that its content gives it on hosts.</summary>
public sealed class AgentPackage
{
    private AgentPackage(string path, string version, string sha256)
    {
        Path = path;
        Version = version;
        Sha256 = sha256;
    }

    /// <summary>The executable on this machine.</summary>
    public string Path { get; }

    /// <summary>The module's version.</summary>
    public string Version { get; }

    /// <summary>64 lower-case hexadecimal digits.</summary>
    public string Sha256 { get; }

    /// <summary>The directory's name on a host: one per content, so that an update never changes a file that runs.</summary>
    public string DirectoryName => $"{Version}-{Sha256[..12]}";

    /// <summary>Reads and hashes the executable.</summary>
    /// <exception cref="FCtransException">AgentPackageMissing.</exception>
    public static AgentPackage Load(string path, string version)
    {
        try
        {
            using FileStream file = File.OpenRead(path);
            return new AgentPackage(path, version, Convert.ToHexString(SHA256.HashData(file)).ToLowerInvariant());
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Failure.AgentPackageMissing(path);
        }
    }
}
