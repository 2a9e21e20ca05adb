using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;

namespace FCtrans.Commands;

/// <summary>Completes the ids of the split migrations that connected hosts know of, the newest first.</summary>
public sealed class SplitIdCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.Of(
            wordToComplete,
            Enumerable.Reverse(SplitMigrationCatalog.From(Completion.Workers()))
                .Select(m => (m.SplitId, $"{m.VM} from {m.SourceHost} to {m.MainHost}, {m.Started:g}: {m.State}")));
}
