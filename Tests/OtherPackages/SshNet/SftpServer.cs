namespace Renci.SshNet;

/// <summary>A type that the package of this name does not have.</summary>
public sealed record SftpServer(string Host);
