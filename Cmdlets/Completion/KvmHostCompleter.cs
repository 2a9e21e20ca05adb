using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;

namespace FCtrans.Commands;

/// <summary>Completes the names of connected hosts.</summary>
public sealed class KvmHostCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters)
    {
        var wildcard = new WildcardPattern((wordToComplete ?? "").Trim('\'', '"') + "*", WildcardOptions.IgnoreCase);
        return HostRegistry.All.Where(h => wildcard.IsMatch(h.Name)).Select(h => new CompletionResult(
            h.Name.All(c => char.IsLetterOrDigit(c) || c is '.' or '-' or '_' or ':') ? h.Name : $"'{h.Name.Replace("'", "''")}'",
            h.Name, CompletionResultType.ParameterValue, $"{h.Name} ({h.HostName})"));
    }
}
