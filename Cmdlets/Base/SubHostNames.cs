using System.Management.Automation;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>The sub-hosts of a split VM by the names that Get-VmRemotePaging shows.</summary>
internal static class SubHostNames
{
    /// <summary>Those that it has now: a sub-host that has left or was given up is none any more.</summary>
    public static IEnumerable<Peer> Present(WorkerSummary worker) => worker.Spec.Peers.Where(
        p => p.Role == WorkerRole.Sub && worker.Status?.Paging?.SubHostStates.ElementAtOrDefault((int)p.SubIndex) is not ("left" or "lost"));

    /// <summary>
    /// Those that names and patterns mean, each once. A name stays as it is though there is no such sub-host: the worker says so; of a
    /// pattern only what it matches.
    /// </summary>
    public static IEnumerable<string> Match(WorkerSummary worker, IEnumerable<string> names)
    {
        string[] present = [.. Present(worker).Select(p => p.Host)];
        return names.SelectMany(name =>
        {
            var pattern = new WildcardPattern(name, WildcardOptions.IgnoreCase);
            return WildcardPattern.ContainsWildcardCharacters(name) ? present.Where(pattern.IsMatch) : [name];
        }).Distinct(StringComparer.OrdinalIgnoreCase);
    }
}
