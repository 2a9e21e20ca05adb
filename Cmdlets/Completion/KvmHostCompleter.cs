using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;

namespace FCtrans.Commands;

/// <summary>Completes the names of connected hosts.</summary>
public sealed class KvmHostCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.Of(wordToComplete, HostRegistry.All.Select(h => (h.Name, $"{h.Name} ({h.HostName})")));
}
