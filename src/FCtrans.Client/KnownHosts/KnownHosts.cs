namespace FCtrans.Client;

/// <summary>
/// The known-hosts files that count for a connection, the user's and the system's. A key that one of them revokes is revoked; else one that
/// stands in any of them is known, whatever the others have.
/// </summary>
internal sealed class KnownHosts
{
    private readonly KnownHostsFile[] _files;

    private KnownHosts(KnownHostsFile[] files) => _files = files;

    /// <summary>For messages: the files that are there, or where a first one would be.</summary>
    public string Paths => string.Join(
        "', '", _files.Where(f => File.Exists(f.Path)).Select(f => f.Path) is var there && there.Any() ? there : _files.Take(1).Select(f => f.Path));

    /// <exception cref="FCtransException">KnownHostsUnusable: one of them can't be read.</exception>
    public static KnownHosts Read(KvmHostSettings settings) =>
        new([.. settings.MoreKnownHostsFiles.Prepend(settings.KnownHostsFile).Where(p => p.Length > 0).Select(KnownHostsFile.Read)]);

    /// <summary>Looks the key up.</summary>
    /// <returns>What was found, and in which file.</returns>
    public (HostKeyFinding Finding, string Path) Find(string host, int port, byte[] key)
    {
        (HostKeyFinding Finding, string Path)[] all = [.. _files.Select(f => (f.Find(host, port, key), f.Path))];
        foreach (HostKeyStatus status in (HostKeyStatus[])[HostKeyStatus.Revoked, HostKeyStatus.Known, HostKeyStatus.Changed])
        {
            if (Array.FindIndex(all, f => f.Finding.Status == status) is >= 0 and var i)
            {
                return all[i];
            }
        }

        return (new HostKeyFinding(HostKeyStatus.Unknown, 0), "");
    }

    /// <summary>The key types known of the host, in the files' order.</summary>
    public IReadOnlyList<string> KeyTypes(string host, int port) => [.. _files.SelectMany(f => f.KeyTypes(host, port)).Distinct()];
}
