using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;

namespace FCtrans.Commands;

/// <summary>Completes the names of the VMs that run on connected hosts; hosts that do not answer soon are left out.</summary>
public sealed class KvmVmCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.Of(
            wordToComplete,
            Completion.Ask((host, stop) => host.Connection.ListVmsAsync(stop))
                .SelectMany(p => p.Answer.Select(v => (v.Name, $"{v.Name} on {p.Host.Name}")))
                .OrderBy(v => v.Name, StringComparer.OrdinalIgnoreCase));
}
