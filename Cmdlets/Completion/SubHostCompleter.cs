using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Completes the names of the sub-hosts that split VMs have, of the VM that is named already or of all.</summary>
public sealed class SubHostCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters)
    {
        string? vm = fakeBoundParameters["VM"] as string ?? fakeBoundParameters["Name"] as string;
        return Completion.Of(
            wordToComplete,
            Completion.Workers().Where(w => w.Worker.Spec?.Role == WorkerRole.Main && (vm is null || w.Worker.Spec.VmName == vm))
                .SelectMany(w => SubHostNames.Present(w.Worker).Select(p => (p.Host, $"a sub-host of {w.Worker.Spec.VmName}"))));
    }
}
