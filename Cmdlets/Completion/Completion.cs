using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>What the completers share: matching what was typed so far, and quoting what needs it.</summary>
internal static class Completion
{
    public static IEnumerable<CompletionResult> Of(string? typed, IEnumerable<(string Value, string ToolTip)> values)
    {
        var wildcard = new WildcardPattern(WildcardPattern.Escape((typed ?? "").Trim('\'', '"')) + "*", WildcardOptions.IgnoreCase);
        return values.Where(v => wildcard.IsMatch(v.Value)).DistinctBy(v => v.Value, StringComparer.OrdinalIgnoreCase)
            .Select(v => new CompletionResult(Quoted(v.Value), v.Value, CompletionResultType.ParameterValue, v.ToolTip));
    }

    private static string Quoted(string name) =>
        name.Length > 0 && name.All(c => char.IsLetterOrDigit(c) || c is '.' or '-' or '_' or ':') ? name : $"'{name.Replace("'", "''")}'";
}
