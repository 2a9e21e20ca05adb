global using Xunit;

// The tests start sshd and the agent: Linux only.
[assembly: System.Runtime.Versioning.SupportedOSPlatform("linux")]
