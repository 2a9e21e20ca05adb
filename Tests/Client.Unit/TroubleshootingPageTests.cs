using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text.RegularExpressions;

namespace FCtrans.Client.Unit.Tests;

/// <summary>Whoever meets an error finds its id on the troubleshooting page.</summary>
public sealed partial class TroubleshootingPageTests
{
    private static readonly string s_root = RepositoryRoot();

    [Fact]
    public void EachErrorIdHasItsPlaceOnThePageAndTheOtherWayRound()
    {
        string page = File.ReadAllText(Path.Combine(s_root, "docs", "troubleshooting.md"));
        string[] described = [.. Heading().Matches(page).Select(m => m.Groups[1].Value).Order()];
        Assert.Equal(ErrorIds().Order(), described);
    }

    [Fact]
    public void EachErrorSaysMoreThanItsId()
    {
        string page = File.ReadAllText(Path.Combine(s_root, "docs", "troubleshooting.md"));
        foreach (string section in page.Split("\n### ").Skip(1))
        {
            Assert.True(section.Length > section.IndexOf('\n') + 20, $"Nothing is said of {section.Split('\n')[0]}.");
        }
    }

    /// <summary>All but the one that by its nature nobody can bring about.</summary>
    [Fact]
    public void EachErrorIdIsBroughtAboutBySomeTest()
    {
        string tests = string.Concat(
            Directory.EnumerateFiles(Path.Combine(s_root, "Tests"), "*", SearchOption.AllDirectories)
                .Where(f => Path.GetExtension(f) is ".cs" or ".ps1" && !f.Contains("/obj/") && !f.Contains("/bin/"))
                .Select(File.ReadAllText));
        Assert.DoesNotContain(ErrorIds(), id => id != nameof(Failure.UnexpectedFailure) && !Regex.IsMatch(tests, $@"\b{id}\b"));
    }

    /// <summary>Those of <see cref="Failure"/>, and those that cmdlets give their own records.</summary>
    private static IEnumerable<string> ErrorIds()
    {
        IEnumerable<string> failures = typeof(Failure).GetMethods(BindingFlags.Public | BindingFlags.Static)
            .Where(m => m.ReturnType == typeof(FCtransException)).Select(m => m.Name);
        IEnumerable<string> records = Directory.EnumerateFiles(Path.Combine(s_root, "Cmdlets"), "*", SearchOption.AllDirectories)
            .Where(f => Path.GetExtension(f) is ".cs" or ".psm1" && !f.Contains("/obj/") && !f.Contains("/bin/"))
            .SelectMany(f => RecordId().Matches(File.ReadAllText(f)).Select(m => m.Groups[1].Value));
        return failures.Concat(records).Distinct();
    }

    private static string RepositoryRoot([CallerFilePath] string thisFile = "") =>
        Path.GetFullPath(Path.Combine(Path.GetDirectoryName(thisFile)!, "..", ".."));

    [GeneratedRegex("^### ([A-Z][A-Za-z]+)$", RegexOptions.Multiline)]
    private static partial Regex Heading();

    [GeneratedRegex("(?:new ErrorRecord|\\[Management\\.Automation\\.ErrorRecord\\]::new)\\([^;]*?,\\s+[\"']([A-Z][A-Za-z]+)[\"']", RegexOptions.Singleline)]
    private static partial Regex RecordId();
}
