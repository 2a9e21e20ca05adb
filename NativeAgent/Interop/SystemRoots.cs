using System.Diagnostics;

namespace FCtrans.Agent.Interop;

/// <summary>
/// The certificates that a host trusts. A worker trusts thumbprints alone, but .NET reads all of them as soon as a process makes a
/// certificate ready for TLS: some 100 ms at each start of a worker, for which a guest may be waiting.
/// </summary>
internal static class SystemRoots
{
    /// <summary>Where OpenSSL, and .NET like it, looks for them instead of where it was built to.</summary>
    private static readonly string[] s_variables = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

    /// <summary>Where nothing is, on any host.</summary>
    private const string Nowhere = "/nonexistent";

    /// <summary>The process that is started will find none, unless somebody has said where to look.</summary>
    public static void HideFrom(ProcessStartInfo start)
    {
        foreach (string variable in s_variables)
        {
            start.Environment.TryAdd(variable, Nowhere);
        }
    }

    /// <summary>The process that is started by one they are hidden from will find them: it is not ours.</summary>
    public static void ShowTo(ProcessStartInfo start)
    {
        foreach (string variable in s_variables)
        {
            if (start.Environment.TryGetValue(variable, out string? value) && value == Nowhere)
            {
                start.Environment.Remove(variable);
            }
        }
    }
}
