using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Memory;

/// <summary>
/// One QEMU memory backend: a shared file that holds a part of the guest's RAM. Owns the handle.
/// </summary>
internal sealed class RamBlock(string id, long firstPage, long pageCount, HostAddress mappedAt, SafeFileHandle file, string path)
    : IDisposable
{
    /// <summary>QEMU's object id.</summary>
    public string Id { get; } = id;

    /// <summary>Index of its first page in the VM.</summary>
    public long FirstPage { get; } = firstPage;

    public long PageCount { get; } = pageCount;

    /// <summary>Where QEMU has mapped its first byte.</summary>
    public HostAddress MappedAt { get; } = mappedAt;

    /// <summary>The RAM file, opened for reading and writing. Offset 0 is <see cref="FirstPage"/>.</summary>
    public SafeFileHandle File { get; } = file;

    /// <summary>Its path as the QEMU process sees it; for messages only.</summary>
    public string Path { get; } = path;

    public long EndPage => FirstPage + PageCount;

    public void Dispose() => File.Dispose();
}
