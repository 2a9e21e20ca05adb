using System.Management.Automation;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>What the completers share: matching what was typed so far, and quoting what needs it.</summary>
internal static class Completion
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(2);

    public static IEnumerable<CompletionResult> Of(string? typed, IEnumerable<(string Value, string ToolTip)> values)
    {
        var wildcard = new WildcardPattern(WildcardPattern.Escape((typed ?? "").Trim('\'', '"')) + "*", WildcardOptions.IgnoreCase);
        return values.Where(v => wildcard.IsMatch(v.Value)).DistinctBy(v => v.Value, StringComparer.OrdinalIgnoreCase)
            .Select(v => new CompletionResult(Quoted(v.Value), v.Value, CompletionResultType.ParameterValue, v.ToolTip));
    }

    /// <summary>What each connected host answers; hosts that do not answer soon are left out.</summary>
    public static (KvmHost Host, T Answer)[] Ask<T>(Func<KvmHost, CancellationToken, Task<T>> ask)
    {
        using var giveUp = new CancellationTokenSource(s_patience);
        KvmHost[] hosts = HostRegistry.All;
        Task<T>[] asked = [.. hosts.Select(h => Task.Run(() => ask(h, giveUp.Token)))];
        Task.WhenAll(asked).ContinueWith(_ => { }, TaskScheduler.Default).Wait(s_patience + s_patience);
        return [.. hosts.Zip(asked).Where(p => p.Second.IsCompletedSuccessfully).Select(p => (p.First, p.Second.Result))];
    }

    /// <summary>The workers on all connected hosts.</summary>
    public static (KvmHost Host, WorkerSummary Worker)[] Workers() =>
        [.. Ask((host, stop) => host.Connection.ListWorkersAsync(stop)).SelectMany(p => p.Answer.Select(w => (p.Host, w)))];

    private static string Quoted(string name) =>
        name.Length > 0 && name.All(c => char.IsLetterOrDigit(c) || c is '.' or '-' or '_' or ':') ? name : $"'{name.Replace("'", "''")}'";
}
