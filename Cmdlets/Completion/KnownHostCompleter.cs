using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>Completes the names of hosts that the user's SSH knows: of its configuration, and of its known-hosts file.</summary>
public sealed class KnownHostCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters)
    {
        IEnumerable<string> knownHosts = fakeBoundParameters["KnownHostsFile"] is string named
            ? [named] : SshPaths.UserKnownHosts.Concat(SshPaths.SystemKnownHosts);
        try
        {
            SshConfigFile config = fakeBoundParameters["SshConfigFile"] is string path ? SshConfigFile.Read(path) : SshConfigFile.ReadDefault();
            return [.. Completion.Of(
                wordToComplete,
                config.HostNames.Select(n => (n, "from the SSH configuration"))
                    .Concat(knownHosts.SelectMany(p => KnownHostsFile.Read(p).HostNames).Select(n => (n, "a known host"))))];
        }
        catch (FCtransException)
        {
            // A file that can't be read completes nothing; Connect-KvmHost says what is wrong with it.
            return [];
        }
    }
}
