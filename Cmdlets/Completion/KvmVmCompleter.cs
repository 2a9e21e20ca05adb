using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Completes the names of the VMs that run on connected hosts; hosts that do not answer soon are left out.</summary>
public sealed class KvmVmCompleter : IArgumentCompleter
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(2);

    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters)
    {
        using var giveUp = new CancellationTokenSource(s_patience);
        KvmHost[] hosts = HostRegistry.All;
        Task<IReadOnlyList<VmInfo>>[] asked = [.. hosts.Select(h => Task.Run(() => h.Connection.ListVmsAsync(giveUp.Token)))];
        Task.WhenAll(asked).ContinueWith(_ => { }, TaskScheduler.Default).Wait(s_patience + s_patience);
        return [.. Completion.Of(
            wordToComplete,
            hosts.Zip(asked).Where(p => p.Second.IsCompletedSuccessfully)
                .SelectMany(p => p.Second.Result.Select(v => (v.Name, $"{v.Name} on {p.First.Name}"))).OrderBy(v => v.Name, StringComparer.OrdinalIgnoreCase))];
    }
}
